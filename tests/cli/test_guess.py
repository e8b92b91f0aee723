import datetime

import pyarrow as pa
import pytest

from genrec.cli.guess import Columns, guess_columns, guess_ladder, time_unit


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (
            {"timestamp": [1433221332117], "visitorid": [1], "event": ["view"], "itemid": [5], "transactionid": [None]},
            Columns("visitorid", "itemid", "event", "timestamp"),
        ),
        (
            {"event_time": ["2019-10-01 00:00:00 UTC"], "event_type": ["view"], "product_id": [4], "user_id": [9]},
            Columns("user_id", "product_id", "event_type", "event_time"),
        ),
        (
            {"userId": [1], "movieId": [2], "rating_type": ["like"], "ts": [964982703]},
            Columns("userId", "movieId", "rating_type", "ts"),
        ),
        (
            {"who": ["ann", "bob"], "what": ["tea", "pot"], "how": ["saw", "saw"], "when": [1.5e9, 1.6e9]},
            Columns("who", "what", "how", "when"),
        ),
        (
            {"c0": ["u1", "u2"], "c1": ["i1", "i2"], "c2": ["view", "view"], "c3": [datetime.datetime(2020, 1, 1)] * 2},
            Columns("c0", "c1", "c2", "c3"),
        ),
    ],
)
def test_columns_are_guessed_by_name_and_content(columns, expected):
    assert guess_columns(pa.table(columns)) == expected


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
def test_every_kind_of_text_column_is_text(kind):
    texts = {"c0": ["u1", "u2"], "c1": ["i1", "i2"], "c2": ["view", "view"], "c3": ["2020-01-01", "2020-01-02"]}
    table = pa.table({name: pa.array(values).cast(kind) for name, values in texts.items()})
    assert guess_columns(table) == Columns("c0", "c1", "c2", "c3")


def test_a_table_without_a_role_says_which_columns_it_has():
    with pytest.raises(ValueError, match="No column looks like the time. The table has: user, item, event. Rename"):
        guess_columns(pa.table({"user": [1], "item": [2], "event": ["view"]}))


def test_known_behaviors_are_ordered_by_what_they_mean():
    counts = {"purchase": 900, "add_to_cart": 50, "PageView": 40, "wish-list": 10}
    assert guess_ladder(counts) == (["PageView", "wish-list", "add_to_cart", "purchase"], True)


def test_unknown_behaviors_are_ordered_by_how_often_they_happen():
    assert guess_ladder({"3": 5, "1": 100, "2": 40}) == (["1", "2", "3"], False)


@pytest.mark.parametrize(("value", "unit"), [(1.4e9, "s"), (1.4e12, "ms"), (1.4e15, "us"), (1.4e18, "ns")])
def test_the_unit_of_a_time_follows_from_its_size(value, unit):
    assert time_unit(pa.chunked_array([[value]])) == unit


def test_dates_need_no_unit():
    assert time_unit(pa.chunked_array([["2020-01-01"]])) == "s"
