"""What candidate lists reach: a log by hand, and the command."""

import pytest

from benchmarks.quality import reach
from benchmarks.quality.reach import reach_of, reach_table
from genrec.data import DataConfig, InteractionLog, prepare

DAY = 86_400


def prepared_log(folder, users):
    """Prepare sessions a day apart, given as lists of items viewed."""
    rows = [
        {"user_id": user, "item_id": item, "behavior": "view", "timestamp": 1_000_000 + day * DAY + place}
        for user, sessions in users.items()
        for day, items in sessions
        for place, item in enumerate(items)
    ]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    config = DataConfig(behaviors="view", sessions="gap")
    return prepare(InteractionLog.read(columns, behaviors="view"), config, folder / "prepared")


def test_each_list_holds_what_it_should(tmp_path):
    """The asked user comes back to a; meets c, which another met with a before; d, which rises; and e, new to all."""
    users = {
        "asked": [(0, "a"), (1, "b"), (50, ["a", "c", "d", "e"])],
        "pair": [(2, ["a", "c"]), (3, "x"), (4, "x")],
        "crowd": [(48, "d"), (49, ["d", "x"]), (49.5, "x")],
    }
    figures = {(each.behavior, each.name): each for each in reach_of(prepared_log(tmp_path, users))}
    merged = [figures["merged", name] for name in reach.LISTS]
    assert {each.records for each in merged} == {3}
    # the last sessions of `pair` and `crowd` hold x, their own item; of the asked user's four, one is in each list
    own, rising, neighbors, together = (each.found for each in merged)
    assert own == pytest.approx(3 / 6)
    assert together >= max(own, rising, neighbors)
    assert together == pytest.approx(5 / 6)  # nobody met e before


def test_a_ceiling_is_the_ndcg_of_the_found_ones_first(tmp_path):
    users = {"asked": [(0, "a"), (1, "b"), (50, "ace")], "other": [(0, "x"), (1, "x"), (2, "x")]}
    users = {name: [(day, list(items)) for day, items in sessions] for name, sessions in users.items()}
    (own,) = [
        each
        for each in reach_of(prepared_log(tmp_path, users))
        if (each.behavior, each.name) == ("merged", "own items")
    ]
    one_of_three = 1 / (1 + 1 / 1.584962500721156 + 1 / 2)
    assert own.ceiling == pytest.approx((one_of_three + 1) / 2)


def test_the_command_shows_the_market(tmp_path, capsys):
    figures = reach.main(["--quick", "--runs", str(tmp_path / "runs"), "--output", str(tmp_path)])
    assert reach_table(figures) in capsys.readouterr().out
    assert (tmp_path / "reach_market.md").read_text().startswith("| behavior | records |")


@pytest.mark.parametrize("arguments", [[], ["--quick", "market"]])
def test_a_recipe_or_the_market_but_not_both(arguments):
    with pytest.raises(ValueError, match="not both"):
        reach.main(arguments)
