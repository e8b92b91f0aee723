"""Every example runs as it stands, in small."""

import importlib.util
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart")
    load("quickstart").main(folder, num_users=30, num_items=40, num_train_epochs=1)
    return folder / "checkpoint"


def test_quickstart_leaves_a_checkpoint(checkpoint):
    assert (checkpoint / "model.safetensors").is_file()
    assert (checkpoint / "item_tokenizer.json").is_file()


def test_load_and_recommend_gives_items_both_ways(checkpoint, capsys):
    load("load_and_recommend").main(str(checkpoint))
    ours, _, plain = capsys.readouterr().out.splitlines()
    assert ours.startswith("new to this user: [")
    assert plain.startswith("plain generate:   [")
    assert "None" not in plain


def test_added_items_can_be_recommended(checkpoint, tmp_path, capsys):
    load("add_items").main(str(checkpoint), tmp_path / "grown")
    line = capsys.readouterr().out.strip()
    assert "item_ids=[10041, 10042]" in line or "item_ids=[10042, 10041]" in line


def test_the_small_table_can_be_read_and_has_three_behaviors(tmp_path):
    load("make_table").main(tmp_path / "events.csv", num_events=200)
    lines = (tmp_path / "events.csv").read_text().splitlines()
    assert len(lines) <= 201
    assert {line.split(",")[2] for line in lines[1:]} == {'"view"', '"cart"', '"buy"'}
