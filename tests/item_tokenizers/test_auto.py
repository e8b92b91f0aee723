import json

import pytest

from genrec.data import DataConfig, InteractionLog, prepare
from genrec.data.gamer_layout import read_semantic_ids
from genrec.item_tokenizers import AutoItemTokenizer, ChunkedIDTokenizer, GivenCodesTokenizer, RQVAETokenizer
from genrec.item_tokenizers.auto import HOMES, tokenizer_class
from genrec.presets import preset_names, preset_path


@pytest.mark.parametrize("name", preset_names("tokenizers"))
def test_every_preset_makes_a_tokenizer_with_its_settings(name):
    preset = json.loads((preset_path("tokenizers", name) / "item_tokenizer.json").read_text())
    tokenizer = AutoItemTokenizer.from_preset(name)
    assert type(tokenizer).__name__ == preset["tokenizer_class"]
    assert preset["settings"].items() <= tokenizer.settings.items()


def test_arguments_replace_a_presets_settings():
    tokenizer = AutoItemTokenizer.from_preset("rqvae-2x256", codebook_sizes=[4, 4], seed=7)
    assert isinstance(tokenizer, RQVAETokenizer)
    assert (tokenizer.settings["codebook_sizes"], tokenizer.settings["seed"]) == ([4, 4], 7)


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'rqvae-auto'"):
        AutoItemTokenizer.from_preset("rqvae-auot")


@pytest.mark.parametrize("name", HOMES)
def test_every_class_is_found_by_its_name(name):
    assert tokenizer_class(name).__name__ == name


def test_an_unknown_class_is_refused():
    with pytest.raises(ValueError, match="no item tokenizer class 'os'. Choose one of ChunkedIDTokenizer"):
        tokenizer_class("os")


def test_codes_from_elsewhere():
    tokenizer = AutoItemTokenizer.from_codes([[0], [0]], ["a", "b"], "view,buy", on_collision="keep")
    assert isinstance(tokenizer, GivenCodesTokenizer)
    assert tokenizer.codes.tolist() == [[0], [0]]


@pytest.fixture
def released(tmp_path):
    """A log in the released GAMER layout: two items share a code, and item 2 is nowhere but in the catalog."""
    files = {
        "SMB.inter": {"1": [10, 11, 10]},
        "SMB.behavior": {"1": ["p3s", "click", "conversion"]},
        "SMB.session": {"1": [0, 1, 2]},
        "behavior_level": {"p3s": 0, "click": 1, "conversion": 2},
        "index": {"10": ["<a_255>", "<b_0>"], "11": ["<a_255>", "<b_0>"], "12": ["<a_1>", "<b_12>"]},
        "item": {"2": {"title": "no code"}},
    }
    for name, content in files.items():
        (tmp_path / f"X.{name}.json").write_text(json.dumps(content))
    return tmp_path


def test_codes_of_a_released_log_become_a_tokenizer(released):
    config = DataConfig(sessions="column", session_column="session", catalog_items="log")
    prepared = prepare(InteractionLog.read(released), config, released / "prepared")
    codes, item_ids = prepared.released_codes(), prepared.catalog.item_ids
    tokenizer = AutoItemTokenizer.from_codes(codes, item_ids, prepared.ladder)
    assert tokenizer.behaviors == ["p3s", "click", "conversion"]
    assert tokenizer.report().raw_collision_rate == 0.5
    assert tokenizer.codebook_sizes == [256, 1, 2]  # one last code for two items: repair adds a level
    assert tokenizer.decode(tokenizer.item_tokens) == [10, 11]


def test_an_item_of_a_released_log_without_code_is_named(released):
    config = DataConfig(sessions="column", session_column="session")
    prepared = prepare(InteractionLog.read(released), config, released / "prepared")
    with pytest.raises(ValueError, match=r"Every item needs a code, .* row 0 \(item 2\) has \[-1, -1\]"):
        AutoItemTokenizer.from_codes(prepared.released_codes(), prepared.catalog.item_ids, prepared.ladder)


def test_codes_of_an_index_file_alone_become_a_tokenizer(released):
    index = read_semantic_ids(released / "X.index.json")
    tokenizer = AutoItemTokenizer.from_codes(index.codes, index.item_ids, "p3s,click,conversion", on_collision="keep")
    assert tokenizer.encode([12]).tolist() == [[1, 12]]
    assert tokenizer.codebook_sizes == [256, 13]


def test_it_is_never_instantiated():
    with pytest.raises(TypeError, match="from_pretrained"):
        AutoItemTokenizer()


def test_the_concrete_class_refuses_another_ones_folder(tmp_path):
    ChunkedIDTokenizer().fit(None, range(5), "view,buy").save_pretrained(tmp_path)
    assert len(ChunkedIDTokenizer.from_pretrained(tmp_path)) == 5
    with pytest.raises(ValueError, match="holds a ChunkedIDTokenizer, not a RQVAETokenizer"):
        RQVAETokenizer.from_pretrained(tmp_path)
