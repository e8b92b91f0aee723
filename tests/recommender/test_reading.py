"""How recommenders read histories: sessions by a gap, and times in no finer unit than seconds."""

from datetime import datetime

import pytest

from genrec.data.behaviors import BehaviorLadder
from genrec.recommender import TrendingRecommender
from genrec.recommender.reading import check_gap_minutes, read_histories

ITEMS, LADDER = ["a", "b"], BehaviorLadder.parse("view")
NOW = 1_700_000_000


@pytest.mark.parametrize(("gap_minutes", "sessions"), [(30, [0, 1]), (60, [0, 0])])
def test_the_gap_makes_the_sessions(gap_minutes, sessions):
    users = [[("a", "view", NOW), ("b", "view", NOW + 45 * 60)]]
    assert read_histories(users, ITEMS, LADDER, gap_minutes=gap_minutes).sessions.tolist() == sessions


def test_a_session_column_goes_before_the_gap():
    table = {"item_id": ["a", "b"], "behavior": ["view"] * 2, "timestamp": [NOW, NOW + 1], "session": [0, 1]}
    assert read_histories(table, ITEMS, LADDER, gap_minutes=60).sessions.tolist() == [0, 1]


def test_milliseconds_are_refused_whatever_is_asked():
    with pytest.raises(ValueError, match="1700000000000 lies centuries away.* Divide milliseconds by 1000"):
        read_histories([[("a", "view", NOW * 1000)]], ITEMS, LADDER, at=NOW)
    with pytest.raises(ValueError, match="`at`, the moment of the question, counts seconds .* Divide milliseconds"):
        read_histories([[("a", "view", NOW)]], ITEMS, LADDER, at=NOW * 1000)
    assert read_histories([[("a", "view", NOW)]], ITEMS, LADDER, at=datetime(2024, 1, 1)).num_later == 0


def test_a_rule_counts_no_milliseconds_either():
    rule = TrendingRecommender().fit(read_histories([[("a", "view", NOW)]], ITEMS, LADDER))
    with pytest.raises(ValueError, match="Divide milliseconds by 1000"):
        rule.add_events([[("a", "view", NOW * 1000)]])


@pytest.mark.parametrize("wrong", [0, -1, float("nan")])
def test_a_gap_that_is_no_pause_is_refused(wrong):
    with pytest.raises(ValueError, match="`gap_minutes`, the pause that ends a session, must be above 0"):
        check_gap_minutes(wrong)
