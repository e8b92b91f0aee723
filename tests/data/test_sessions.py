import uuid

import ibis
import pyarrow as pa
import pytest

from genrec.data.config import DataConfig
from genrec.data.sessions import renumbered, with_sessions

DAY = 86_400


@pytest.fixture(scope="module")
def table_of():
    backend = ibis.duckdb.connect()
    return lambda columns: backend.create_table(f"t_{uuid.uuid4().hex}", ibis.memtable(pa.table(columns)))


@pytest.fixture
def sessions(table_of):
    """Number the sessions of `(user, second[, given session])` events, returned in the order of the events."""

    def number(events, config):
        columns = {"row": range(len(events)), "user_id": [event[0] for event in events]}
        columns["time"] = [round(event[1] * 1_000_000) for event in events]
        if config.sessions == "column":
            columns["session"] = [event[2] for event in events]
        return numbers(with_sessions(table_of(columns), config))

    return number


def numbers(table):
    return table.order_by("row").to_pyarrow()["session"].to_pylist()


def test_a_pause_longer_than_the_gap_starts_a_session(sessions):
    events = [("a", 0), ("a", 600), ("a", 1200.000001), ("a", 1200.000001), ("b", 1201), ("b", 9000)]
    assert sessions(events, DataConfig(gap_minutes=10)) == [0, 0, 1, 1, 0, 1]


def test_source_order_does_not_matter_but_time_does(sessions):
    assert sessions([("a", 9000), ("b", 0), ("a", 0), ("a", 10)], DataConfig()) == [1, 0, 0, 0]


def test_a_day_begins_at_midnight_of_its_zone(sessions):
    events = [("a", 0), ("a", 16 * 3600 - 1), ("a", 16 * 3600), ("a", DAY)]
    assert sessions(events, DataConfig(sessions="day")) == [0, 0, 0, 1]
    assert sessions(events, DataConfig(sessions="day", day_time_zone="Asia/Shanghai")) == [0, 0, 1, 1]


def test_a_day_follows_summer_time(sessions):
    new_years_midnight, july_midnight = 1_577_833_200, 1_593_554_400  # in Berlin: 2020-01-01, 2020-07-01
    config = DataConfig(sessions="day", day_time_zone="Europe/Berlin")
    for midnight in (new_years_midnight, july_midnight):
        events = [("a", midnight - 1), ("a", midnight), ("a", midnight + 3600), ("a", new_years_midnight - 9 * DAY)]
        assert sessions(events, config) == [1, 2, 2, 0]


def test_given_sessions_start_where_their_value_changes(sessions):
    events = [("a", 0, "x"), ("a", 1, "x"), ("a", 2, "y"), ("a", 3, "x"), ("b", 4, "x")]
    assert sessions(events, DataConfig(sessions="column", session_column="visit")) == [0, 0, 1, 2, 0]


def test_ties_in_time_follow_the_source_row(sessions):
    events = [("a", 5, "x"), ("a", 5, "y"), ("a", 5, "y"), ("a", 0, "x")]
    assert sessions(events, DataConfig(sessions="column", session_column="visit")) == [0, 1, 1, 0]


@pytest.mark.parametrize("with_holes", [[0, 0, 2, 5, 1], [3, 3, 4, 9, 0]])
def test_renumbering_closes_holes_per_user(table_of, with_holes):
    table = table_of({"row": range(5), "user_id": [*"aaaab"], "session": with_holes})
    assert numbers(renumbered(table)) == [0, 0, 1, 2, 0]
