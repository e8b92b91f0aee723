"""The behavior ladder: parsing, ties, and what it refuses."""

import pytest

from genrec.data.behaviors import BehaviorLadder
from genrec.data.config import DataConfig
from genrec.data.interactions import InteractionLog
from genrec.data.preparation import prepare


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


@pytest.mark.parametrize("name", ["add,to cart", "a=b", " view", "view ", "view\n", ",", " "])
def test_a_name_that_a_written_ladder_would_change_is_refused(name):
    with pytest.raises(ValueError, match=r"a ladder is written .* map the log's with `behavior_names`"):
        BehaviorLadder((name, "buy"), (0, 1))


@pytest.mark.parametrize("element", ["add,to cart", " view", "like = save"])
def test_an_element_of_a_sequence_is_taken_as_it_stands(element):
    with pytest.raises(ValueError, match="holds a comma, an equals sign or a space around it"):
        BehaviorLadder.parse([element, "buy"])


def test_the_behavior_names_of_a_config_give_a_log_the_names_that_a_ladder_can_have(tmp_path):
    config = DataConfig(
        interactions=str(tmp_path / "log.csv"),
        behaviors="add to cart,buy",
        behavior_names={"add,to cart": "add to cart", " buy": "buy"},
    )
    rows = [f'u,i{n},"{name}",{n * 7200}' for n, name in enumerate(["add,to cart", " buy", "add,to cart"])]
    (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id,behavior,timestamp", *rows]))
    log = InteractionLog.read(config.interactions, behaviors=config.behaviors, behavior_names=config.behavior_names)
    prepared = prepare(log, config, tmp_path / "prepared")
    assert prepared.ladder.names == ("add to cart", "buy")
    assert prepared.histories.behaviors.tolist() == [0, 1, 0]
