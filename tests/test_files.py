"""Files are written whole or not at all, and a broken one is named."""

from pathlib import Path

import pytest
import torch

from genrec.files import (
    fingerprint,
    load_safetensors,
    read_json,
    replace_folder,
    save_safetensors,
    write_atomically,
    write_json,
)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "note.txt"
    path.write_text("old")

    def fail() -> None:
        with write_atomically(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="disk"):
        fail()
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["note.txt"]


def test_json_comes_back_and_a_truncated_file_is_named(tmp_path):
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"b": [1, "ü"]})
    assert read_json(path) == {"b": [1, "ü"]}
    path.write_text(path.read_text()[:5])
    with pytest.raises(ValueError, match=r"a\.json is not valid JSON .* truncated or corrupt"):
        read_json(path)


def test_not_a_number_is_refused_before_the_file_changes(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, 1)
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(path, float("nan"))
    assert read_json(path) == 1


def test_tensors_come_back_and_a_truncated_file_is_named(tmp_path):
    path = tmp_path / "a.safetensors"
    save_safetensors(path, {"x": torch.arange(6).reshape(2, 3).T})
    assert load_safetensors(path)["x"].tolist() == [[0, 3], [1, 4], [2, 5]]
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"a\.safetensors is truncated or corrupt"):
        load_safetensors(path)


def test_fingerprints_follow_content_not_names(tmp_path):
    first, second = tmp_path / "1", tmp_path / "2"
    first.write_text("same")
    second.write_text("same")
    assert fingerprint(first) == fingerprint(second)
    second.write_text("other")
    assert fingerprint(first) != fingerprint(second)
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})


def test_a_folder_is_replaced_only_when_its_successor_is_whole(tmp_path):
    final = tmp_path / "final"
    with replace_folder(final) as temporary:
        (temporary / "old.txt").write_text("old")
    with pytest.raises(FileNotFoundError), replace_folder(final) as temporary:
        (temporary / "missing" / "new.txt").write_text("new")
    assert [path.name for path in tmp_path.rglob("*.txt")] == ["old.txt"]


def test_nothing_of_the_old_folder_is_left(tmp_path):
    final = tmp_path / "final"
    final.mkdir()
    (final / "old.txt").write_text("old")
    (tmp_path / ".final.partial").mkdir()
    (tmp_path / ".final.partial" / "leftover.txt").write_text("of a killed run")
    with replace_folder(final) as temporary:
        (temporary / "new.txt").write_text("new")
    assert [path.name for path in tmp_path.rglob("*.txt")] == ["new.txt"]


def test_a_folder_may_be_named_by_a_way_there(tmp_path, monkeypatch):
    (tmp_path / "runs" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with replace_folder(Path("runs") / "deep" / "..") as temporary:
        (temporary / "new.txt").write_text("new")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["new.txt"]


@pytest.mark.parametrize("folder", [".", "..", "../inner"])
def test_the_folder_that_one_works_in_is_not_replaced(tmp_path, monkeypatch, folder):
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    message = "would be replaced, but it is, or holds, the one you work in: .*inner"
    with pytest.raises(ValueError, match=message), replace_folder(folder):
        pytest.fail("must not be entered")
    assert [path.name for path in tmp_path.iterdir()] == ["inner"]
