"""Break one line at a time; for each, a test must fail. Run with `make mutants`.

The tree is copied first, so that a broken line can never stay behind. A mutant whose line no longer exists is an error:
whoever moves the line moves the mutant.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Mutant:
    """One broken line: what it stands for, where it is, and the tests that must notice."""

    name: str
    file: str
    line: str
    broken: str
    tests: str


MUTANTS = [
    Mutant(
        name="mask: a stronger behavior sees its own level too",
        file="genrec/models/gamer/behavior_masks.py",
        line="(key_levels >= 0) & (key_levels < query_levels)",
        broken="(key_levels >= 0) & (key_levels <= query_levels)",
        tests="tests/models/test_behavior_masks.py",
    ),
    Mutant(
        name="trie: a code that follows nothing is followed all the same",
        file="genrec/generation/trie.py",
        line="return torch.where(found, low + 1, DEAD_END)",
        broken="return torch.where(low < end, low + 1, DEAD_END)",
        tests="tests/generation/test_trie.py",
    ),
    Mutant(
        name="loss mask: every interaction of a validation sample bears loss",
        file="genrec/training/collators.py",
        line="labels = torch.where(bears_loss[:, None], tokens, IGNORED)",
        broken="labels = torch.where(torch.ones_like(bears_loss)[:, None], tokens, IGNORED)",
        tests="tests/training/test_collators.py",
    ),
    Mutant(
        name="position: the tokens of an item share one rotary position",
        file="genrec/models/gamer/token_layout.py",
        line="return self._since_segment_start(self.sessions) * tokens_per_item + self.places",
        broken="return self._since_segment_start(self.sessions) * tokens_per_item",
        tests="tests/models/test_token_layout.py tests/models/test_golden_logits.py",
    ),
    Mutant(
        name="metric: NDCG without its ideal",
        file="genrec/evaluation/metrics.py",
        line="return (counted * discounts).sum(axis=1) / ideal",
        broken="return (counted * discounts).sum(axis=1)",
        tests="tests/evaluation/test_metrics.py",
    ),
]


def is_caught(mutant: Mutant, folder: Path) -> bool:
    """Break the line in a copy of the tree, run the tests and say whether one failed."""
    path = folder / mutant.file
    source = path.read_text(encoding="utf-8")
    if source.count(mutant.line) != 1:
        raise SystemExit(
            f"{mutant.name}: {mutant.file} holds {mutant.line!r} {source.count(mutant.line)} times, not once."
        )
    path.write_text(source.replace(mutant.line, mutant.broken), encoding="utf-8")
    try:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *mutant.tests.split()]
        result = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True)
    finally:
        path.write_text(source, encoding="utf-8")
    if result.returncode not in (0, 1):
        raise SystemExit(f"{mutant.name}: pytest could not run the tests.\n{result.stdout}\n{result.stderr}")
    return result.returncode == 1


def environment(folder: Path) -> dict[str, str]:
    """Import genrec from the copy, on one thread."""
    return os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}


def main() -> None:
    """Run all mutants; exit with an error if one survives."""
    survivors = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "genrec"
        ignore = shutil.ignore_patterns(".git", ".venv", "runs", "*_cache", "__pycache__", "build", "dist")
        shutil.copytree(ROOT, folder, ignore=ignore, symlinks=True)
        for mutant in MUTANTS:
            caught = is_caught(mutant, folder)
            verdict = "caught" if caught else "SURVIVED"
            print(f"{verdict:9} {mutant.name}: {mutant.line} -> {mutant.broken}")
            if not caught:
                survivors.append(mutant.name)
    if survivors:
        raise SystemExit(f"No test failed for: {', '.join(survivors)}.")


if __name__ == "__main__":
    main()
