import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from genrec.files import read_json, write_json
from genrec.item_tokenizers import AutoItemTokenizer, RQKMeansTokenizer
from genrec.item_tokenizers.storage import CONFIG_FILE, FILES, ITEM_IDS_FILE, TENSORS_FILE

TOKEN = "hf_dummy"


@pytest.fixture
def folder(tmp_path):
    vectors = [[float(row % 5), float(row // 5), 1.0] for row in range(20)]
    RQKMeansTokenizer([4, 8]).fit(vectors, [f"i{row}" for row in range(20)], "view,buy").save_pretrained(tmp_path)
    return tmp_path


def edit(folder, **changes):
    write_json(folder / CONFIG_FILE, read_json(folder / CONFIG_FILE) | changes)


def test_a_folder_holds_three_files_and_nothing_else(folder):
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert json.loads((folder / ITEM_IDS_FILE).read_text())[:2] == ["i0", "i1"]
    assert json.loads((folder / CONFIG_FILE).read_text())["settings"]["codebook_sizes"] == [4, 8]


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_named(folder, name):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=f"{name}.*(truncated|corrupt)"):
        AutoItemTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        AutoItemTokenizer.from_pretrained(folder)


def test_files_of_two_saves_are_refused(folder):
    ids = json.loads((folder / ITEM_IDS_FILE).read_text())
    write_json(folder / ITEM_IDS_FILE, ids[::-1])
    with pytest.raises(ValueError, match=f"do not belong together.*{ITEM_IDS_FILE} and {TENSORS_FILE}"):
        AutoItemTokenizer.from_pretrained(folder)


def test_edited_sizes_are_refused(folder):
    edit(folder, codebook_sizes=[4, 2])
    with pytest.raises(ValueError, match=r"says `codebook_sizes` \[4, 2\], but"):
        AutoItemTokenizer.from_pretrained(folder)


def test_missing_fields_a_later_format_and_unknown_settings_are_refused(folder):
    edit(folder, settings={"codebooks": 3})
    with pytest.raises(ValueError, match="not those of a RQKMeansTokenizer.*'codebooks'"):
        AutoItemTokenizer.from_pretrained(folder)
    edit(folder, format_version=99)
    with pytest.raises(ValueError, match="format version 99.*Upgrade genrec"):
        AutoItemTokenizer.from_pretrained(folder)
    write_json(folder / CONFIG_FILE, {"tokenizer_class": "RQKMeansTokenizer", "settings": {}})
    with pytest.raises(ValueError, match="lacks behaviors, codebook_sizes, fingerprint, format_version"):
        AutoItemTokenizer.from_pretrained(folder)
    write_json(folder / CONFIG_FILE, [])
    with pytest.raises(ValueError, match="no fitted item tokenizer's file"):
        AutoItemTokenizer.from_pretrained(folder)


def test_a_folder_without_a_tokenizer_and_a_path_that_is_none_say_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="has no item_tokenizer.json, so it holds no item tokenizer"):
        AutoItemTokenizer.from_pretrained(tmp_path)
    for missing in (tmp_path / "nowhere", "./nowhere", "runs/demo/checkpoint"):
        with pytest.raises(FileNotFoundError, match="There is no folder"):
            AutoItemTokenizer.from_pretrained(missing)


def test_saving_over_a_folder_replaces_it(folder):
    tokenizer = AutoItemTokenizer.from_pretrained(folder).remove_items(["i0"])
    tokenizer.save_pretrained(folder)
    assert len(AutoItemTokenizer.from_pretrained(folder)) == 19


PUSH_AND_LOAD = """
import sys
from genrec.item_tokenizers import AutoItemTokenizer
tokenizer = AutoItemTokenizer.from_pretrained(sys.argv[1])
print(tokenizer.push_to_hub("shop/codes", private=True))
loaded = AutoItemTokenizer.from_pretrained("shop/codes")
assert loaded.codes.equal(tokenizer.codes)
assert loaded.item_ids.tolist() == tokenizer.item_ids.tolist()
"""


def test_push_uploads_all_files_and_the_name_loads_them_back(folder, tmp_path_factory):
    spec = importlib.util.spec_from_file_location("hub_server", Path(__file__).parents[1] / "hub_server.py")
    module = sys.modules.setdefault("hub_server", importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    with module.hub_server(TOKEN) as (endpoint, state):
        environment = os.environ | {
            "HF_ENDPOINT": endpoint,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(tmp_path_factory.mktemp("hub")),
        }
        command = [sys.executable, "-c", PUSH_AND_LOAD, str(folder)]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, result.stderr
        assert result.stdout.strip() == f"{endpoint}/shop/codes"
    stored = state.repos["shop/codes"]
    assert state.private["shop/codes"]
    assert set(stored) == {*FILES, "README.md"}
    assert {name: stored[name].content for name in FILES} == {name: (folder / name).read_bytes() for name in FILES}
    assert stored[TENSORS_FILE].is_lfs
    assert b'from_pretrained("shop/codes")' in stored["README.md"].content
