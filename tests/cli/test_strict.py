from collections.abc import Sequence
from typing import Any, Literal

import pytest

from genrec.cli.strict import check_section, check_value, fits, unknown_key, words_for

SCHEMA = {"learning_rate": float, "num_train_epochs": int, "name": str | None, "sizes": str | Sequence[int], "any": Any}


def test_values_of_the_right_type_pass_unchanged():
    section = {"learning_rate": 0.1, "num_train_epochs": 3, "name": None, "sizes": [4, 4], "any": {"a": [1]}}
    assert check_section(section, SCHEMA, "training") == section


def test_an_empty_section_is_an_empty_mapping():
    assert check_section(None, SCHEMA, "training") == {}


def test_a_whole_number_is_a_number_and_becomes_one():
    checked = check_section({"learning_rate": 1}, SCHEMA, "training")
    assert isinstance(checked["learning_rate"], float)


def test_numbers_that_yaml_reads_as_text_become_numbers():
    assert check_value("5e-4", float, "training.learning_rate") == 5e-4
    assert check_value("5e-4", float | None, "training.learning_rate") == 5e-4


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("learning_rate", "fast", r"`training.learning_rate` must be a number, got 'fast' \(str\)\."),
        ("learning_rate", True, r"`training.learning_rate` must be a number, got True \(bool\)\."),
        ("num_train_epochs", 1.5, r"`training.num_train_epochs` must be a whole number, got 1.5 \(float\)\."),
        ("num_train_epochs", "3", r"`training.num_train_epochs` must be a whole number, got '3' \(str\)\."),
        ("name", 3, r"`training.name` must be text or null, got 3 \(int\)\."),
        ("sizes", [1, "a"], r"`training.sizes` must be text or a list \(a whole number each\), got"),
    ],
)
def test_a_wrong_type_is_named_with_its_path(key, value, message):
    with pytest.raises(ValueError, match=message):
        check_section({key: value}, SCHEMA, "training")


def test_an_unknown_key_names_the_nearest_valid_one_and_its_path():
    message = (
        "Unknown key `training.learning_rat`. Did you mean `training.learning_rate`? `training` takes: any, "
        "learning_rate, name, num_train_epochs, sizes."
    )
    with pytest.raises(ValueError, match="Unknown key") as caught:
        check_section({"learning_rat": 1}, SCHEMA, "training")
    assert str(caught.value) == message


def test_an_unknown_key_that_is_like_no_other_lists_what_there_is():
    assert unknown_key("zzz", ["a", "b"], "") == "Unknown key `zzz`. A recipe has: a, b."


def test_a_long_list_of_keys_is_cut_to_the_nearest():
    message = unknown_key("setting_1x", [f"setting_{number}" for number in range(100)], "training")
    assert message.endswith("and 95 more.")
    assert "setting_1," in message


def test_a_section_that_is_no_mapping_is_refused():
    with pytest.raises(ValueError, match="`training` must be a mapping of settings, got 3"):
        check_section(3, SCHEMA, "training")


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        ("full", Literal["full", "level"], True),
        ("half", Literal["full", "level"], False),
        ({"a": 1}, dict[str, int], True),
        ([1], dict[str, int], False),
        ([1, 2], list[int], True),
        (None, None, True),
        (object(), object, True),
    ],
)
def test_fits(value, annotation, expected):
    assert fits(value, annotation) is expected


def test_literals_are_listed_in_words():
    assert words_for(Literal["full", "level"]) == "one of 'full', 'level'"
