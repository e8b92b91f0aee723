"""The behavior ladder: parsing, ties, and what it refuses."""

import pytest

from genrec.data.behaviors import BehaviorLadder


def test_ties_share_a_level_and_keep_their_own_index():
    ladder = BehaviorLadder.parse("p3s, click=like ,conversion")
    assert ladder.names == ("p3s", "click", "like", "conversion")
    assert ladder.levels == (0, 1, 1, 2)
    assert ladder.target == "conversion"
    assert [ladder.index(name) for name in ladder.names] == [0, 1, 2, 3]


@pytest.mark.parametrize("text", ["buy", "view,buy", "view,favorite=collect,cart,buy"])
def test_writing_and_parsing_are_inverse(text):
    ladder = BehaviorLadder.parse(text)
    assert str(ladder) == text
    assert BehaviorLadder.parse(text.split(",")) == ladder
    assert BehaviorLadder.parse(ladder) is ladder


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "name is empty"),
        ("view,,buy", "name is empty"),
        ("view,buy,view", "'view' stands twice"),
        ("view,cart=buy", "Exactly one behavior must be the strongest"),
    ],
)
def test_a_wrong_ladder_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        BehaviorLadder.parse(text)


@pytest.mark.parametrize("levels", [(1, 2), (0, 2), (1, 0)])
def test_levels_must_climb_from_zero(levels):
    with pytest.raises(ValueError, match="start at 0 and rise by 0 or 1"):
        BehaviorLadder(("view", "buy"), levels)


def test_names_and_levels_must_match():
    with pytest.raises(ValueError, match="1 names and 2 levels"):
        BehaviorLadder(("view",), (0, 1))


def test_an_unknown_behavior_names_the_ladder():
    with pytest.raises(ValueError, match="Unknown behavior 'like'. The ladder has: view, buy"):
        BehaviorLadder.parse("view,buy").index("like")
