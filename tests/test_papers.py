"""`docs/papers.md` speaks of what exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NAMES = sorted(set(re.findall(r"`([A-Za-z_][\w./-]+)`", (ROOT / "docs" / "papers.md").read_text(encoding="utf-8"))))


@pytest.fixture(scope="module")
def sources() -> str:
    folders = {"genrec": "*.py", "tests/models": "*.py", "hub_configs": "*"}
    files = [path for folder, pattern in folders.items() for path in (ROOT / folder).rglob(pattern)]
    return "\n".join(f"{path.as_posix()} {path.read_text(encoding='utf-8')}" for path in files if path.is_file())


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_a_file_a_module_or_stands_in_the_code(name: str, sources: str):
    last = name if "/" in name or name.endswith(".py") else name.rpartition(".")[2]
    assert (ROOT / name).exists() or re.search(rf"(?<![\w-]){re.escape(last)}(?![\w-])", sources)
