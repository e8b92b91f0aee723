import subprocess

import torch

from genrec.cli import provenance


def test_versions_are_those_that_run():
    facts = provenance.provenance()
    assert facts["versions"]["torch"] == torch.__version__
    assert set(facts) == {"commit", "versions", "finished"}


def test_packages_that_are_missing_are_left_out(monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGES", ("torch", "no-such-package"))
    assert list(provenance.package_versions()) == ["torch"]


def test_the_commit_is_marked_if_there_are_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "genrec" / "cli" / "provenance.py"))
    assert provenance.commit() is None  # no checkout

    def git(*arguments):
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    assert provenance.commit() is None  # no commit yet
    (tmp_path / "file").write_text("a")
    git("add", "file")
    git("commit", "-qm", "first")
    head = git("rev-parse", "--short=10", "HEAD")
    assert provenance.commit() == head
    (tmp_path / "file").write_text("b")
    assert provenance.commit() == f"{head}+"


def test_peak_memory_covers_what_was_held():
    held = torch.zeros(50_000_000, dtype=torch.uint8) + 1
    assert provenance.peak_megabytes() * 1e6 > held.nbytes
