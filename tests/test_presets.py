"""Presets reach installed users: from a checkout through links, from a wheel as files."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from genrec import presets
from genrec.presets import HOMES, preset_folder, preset_names, preset_path

ROOT = Path(__file__).parent.parent
BUILD = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"


@pytest.mark.parametrize(("kind", "home"), HOMES.items())
def test_the_package_sees_the_checkouts_presets(kind, home):
    assert preset_folder(kind).resolve() == ROOT / home


@pytest.mark.parametrize(("kind", "home"), HOMES.items())
def test_where_links_are_not_kept_the_checkout_is_read(kind, home, tmp_path, monkeypatch):
    package = tmp_path / "genrec" / "presets"
    package.mkdir(parents=True)
    (package / kind).write_text("../../" + home)  # what a checkout without links holds
    (tmp_path / home).mkdir(parents=True)
    monkeypatch.setattr(presets, "__file__", str(package / "__init__.py"))
    assert preset_folder(kind) == tmp_path / home


def test_a_broken_installation_is_said_so(tmp_path, monkeypatch):
    monkeypatch.setattr(presets, "__file__", str(tmp_path / "genrec" / "presets" / "__init__.py"))
    with pytest.raises(FileNotFoundError, match="lacks its tokenizers presets"):
        preset_folder("tokenizers")


def test_names_are_found_with_or_without_a_suffix():
    assert preset_path("recipes", "demo") == preset_path("recipes", "demo.yaml")
    assert {"gamer-tiny", "gamer-small", "gamer-base", "gamer-paper", "qwen3-baseline"} <= set(
        preset_names("hub_configs")
    )


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(ValueError, match="There is no preset 'gamer-smal' in hub_configs. Did you mean 'gamer-small'?"):
        preset_path("hub_configs", "gamer-smal")
    with pytest.raises(ValueError, match="There is no preset '' in recipes. There are: demo"):
        preset_path("recipes", "")


def test_a_wheel_carries_every_preset_and_template(tmp_path):
    """The links become files, and nothing of the checkout's top level is shipped as a package."""
    pytest.importorskip("setuptools", minversion="77", reason="pyproject.toml asks for it; no download in tests")
    copy = tmp_path / "checkout"
    copy.mkdir()
    for name in (
        "setup.cfg",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "genrec",
        "hub_configs",
        "tokenizers",
        "examples",
    ):
        subprocess.run(["cp", "-a", str(ROOT / name), str(copy / name)], check=True)
    build = subprocess.run(
        [sys.executable, "-c", BUILD, str(tmp_path)], cwd=copy, capture_output=True, text=True, check=False
    )
    assert build.returncode == 0, build.stderr
    files = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    for kind, home in HOMES.items():
        expected = {path.relative_to(ROOT / home) for path in (ROOT / home).rglob("*") if path.is_file()}
        shipped = {
            Path(name).relative_to(f"genrec/presets/{kind}")
            for name in files
            if name.startswith(f"genrec/presets/{kind}/")
        }
        assert shipped == expected
    assert "genrec/templates/model_card.md" in files
    assert "genrec/py.typed" in files
    assert {name.split("/")[0] for name in files if ".dist-info" not in name} == {"genrec"}
