"""Histories: reading every form users write them in, and row arithmetic against plain lists."""

import datetime
from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from genrec.data.event_columns import as_id_array
from genrec.data.histories import Histories, ItemIndex, Queries, as_histories, asked_at, sessions_by_gap

ITEM_IDS = ["a", "b", "c", "d"]
SHANGHAI = datetime.timezone(datetime.timedelta(hours=8))
LISTS = [[("a", "view"), ("b", "buy"), ("a", "buy")], [], [("d", "view")]]


def make() -> Histories:
    return as_histories(LISTS, ITEM_IDS, "view,buy")


def as_lists(histories: Histories) -> list[list[tuple[int, int]]]:
    return [list(zip(history.items.tolist(), history.behaviors.tolist(), strict=True)) for history in histories]


def test_lists_become_rows_and_indices():
    histories = make()
    assert as_lists(histories) == [[(0, 0), (1, 1), (0, 1)], [], [(3, 0)]]
    assert histories.lengths.tolist() == [3, 0, 1]
    assert histories.rows.tolist() == [0, 0, 0, 2]


def test_without_times_every_interaction_is_its_own_session():
    assert make().sessions.tolist() == [0, 1, 2, 0]


def test_with_times_sessions_follow_the_gap():
    times = [0, 1800, 3601]
    histories = as_histories([[("a", "view", time) for time in times]], ITEM_IDS, "view,buy")
    assert histories.sessions.tolist() == [0, 0, 1]
    assert (
        as_histories([[("a", "view", t) for t in times]], ITEM_IDS, "view", gap_minutes=60).sessions.tolist() == [0] * 3
    )


def test_sessions_by_gap_restart_for_every_user_and_accept_nothing():
    rows, times = np.array([0, 0, 1, 1, 1]), np.array([0, 61, 62, 63, 200])
    assert sessions_by_gap(rows, times, gap_minutes=1).tolist() == [0, 1, 0, 0, 1]
    assert sessions_by_gap(rows[:0], times[:0], gap_minutes=1).tolist() == []


COLUMNS = {
    "user_id": ["u", "v", "u"],
    "item_id": ["a", "d", "b"],
    "behavior": ["view", "view", "buy"],
    "timestamp": [5000, 7, 20],
}


@pytest.mark.parametrize("make_table", [dict, pa.table, pd.DataFrame, pl.DataFrame])
def test_any_table_is_grouped_by_user_and_sorted_by_time(make_table):
    histories = as_histories(make_table(COLUMNS), ITEM_IDS, "view,buy")
    assert histories.users.tolist() == ["u", "v"]
    assert as_lists(histories) == [[(1, 1), (0, 0)], [(3, 0)]]
    assert histories.sessions.tolist() == [0, 1, 0]


def test_a_table_may_bring_sessions_and_may_lack_users_and_times():
    table = {"item_id": ["a", "b"], "behavior": ["view", "view"], "session": [4, 4]}
    histories = as_histories(table, ITEM_IDS, "view,buy")
    assert histories.sessions.tolist() == [4, 4]
    assert histories.users.tolist() == [0]


def test_date_times_are_read_as_seconds():
    moment = datetime.datetime(1970, 1, 1, 0, 1)
    assert as_histories([[("a", "view", moment)]], ITEM_IDS, "view").times.tolist() == [60]


MINUTE = datetime.datetime(1970, 1, 1, 0, 1)


@pytest.mark.parametrize(
    "time",
    [
        *(60, 60.9, np.int32(60), datetime.datetime(1970, 1, 1, 0, 1), pd.Timestamp(60.5, unit="s")),
        *(datetime.datetime(1970, 1, 1, 8, 1, tzinfo=SHANGHAI), np.datetime64("1970-01-01T00:01")),
        *("1970-01-01T08:01:00+08:00", "1970-01-01 00:01:00", "1970-01-01 00:01:00 UTC"),
    ],
    ids=repr,
)
@pytest.mark.filterwarnings("error")
def test_a_time_may_be_written_in_many_ways(time):
    assert as_histories([[("a", "view", time)]], ITEM_IDS, "view").times.tolist() == [60]
    table = {"item_id": ["a"], "behavior": ["view"], "timestamp": [time]}
    assert as_histories(table, ITEM_IDS, "view").times.tolist() == [60]


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([5, None], "must be seconds since 1970, a datetime or ISO text, got None"),
        ([5.0, float("nan")], "must be a finite number of seconds, got nan"),
        ([5, 2**63], f"must be a finite number of seconds, got {2**63}"),
        ([MINUTE, None], "ISO text, got None"),
        ([MINUTE, pd.NaT], "cannot be read: NaT is no moment"),
        (np.array(["1970-01-01", "NaT"], dtype="datetime64[s]"), r"ISO text, got .*datetime64\('NaT'"),
        (["1970-01-01", "1970-01-02 08:00:00 PM"], "cannot be read: '1970-01-02 08:00:00 PM' is no moment"),
        ([MINUTE, True], "ISO text, got True"),
    ],
)
def test_times_that_are_no_moments_name_the_row(times, message):
    history = [("a", "view", time) for time in times]
    with pytest.raises(ValueError, match=rf"The time of event 1 of history 1 \(both counted from 0\) .*{message}"):
        as_histories([history[:1], history], ITEM_IDS, "view")
    table = {"user_id": ["u", "v"], "item_id": ["a", "a"], "behavior": ["view", "view"], "timestamp": times}
    with pytest.raises(ValueError, match=rf"`timestamp` in row 1 \(counted from 0; user 'v'\) of the .*{message}"):
        as_histories(table, ITEM_IDS, "view")


@pytest.mark.parametrize("wrong", [None, "s1", 1.5, float("nan"), 2**63])
def test_sessions_that_are_no_whole_numbers_name_the_row(wrong):
    table = {"item_id": ["a", "b"], "behavior": ["view", "view"], "session": [0, wrong]}
    with pytest.raises(ValueError, match=r"`session` in row 1 \(counted from 0\) .* must be a whole number, got"):
        as_histories(table, ITEM_IDS, "view")


@pytest.mark.parametrize("sessions", [[4, 5], [4.0, 5.0], ["4", "5"], np.array([4, 5], dtype=np.uint8)])
def test_sessions_may_be_written_as_any_whole_numbers(sessions):
    table = {"item_id": ["a", "b"], "behavior": ["view", "view"], "session": sessions}
    assert as_histories(table, ITEM_IDS, "view").sessions.tolist() == [4, 5]


def test_falling_sessions_are_refused():
    table = {"user_id": ["u", "v", "u", "v"], "item_id": list("abcd"), "behavior": ["view"] * 4}
    assert as_histories({**table, "session": [2, 1, 2, 1]}, ITEM_IDS, "view").sessions.tolist() == [2, 2, 1, 1]
    with pytest.raises(ValueError, match="history 1 has session 0 after 1. Number its sessions in the order of time"):
        as_histories({**table, "session": [2, 1, 2, 0]}, ITEM_IDS, "view")


@pytest.mark.parametrize("short", ["behavior", "user_id", "timestamp"])
def test_columns_of_unequal_length_are_refused(short):
    with pytest.raises(ValueError, match=f"`item_id` has 3 and `{short}` has 2. Give columns of one length"):
        as_histories({**COLUMNS, short: COLUMNS[short][:2]}, ITEM_IDS, "view,buy")


def test_a_table_without_items_is_refused():
    with pytest.raises(ValueError, match="'item_id' is missing"):
        as_histories({"item": ["a"], "behavior": ["view"]}, ITEM_IDS, "view")


@pytest.mark.parametrize(
    "wrong", [[("a", "view")], [["a", "view", 3, 4]], [[("a",)]], [[("a", "view"), ("a", "view", 1)]]]
)
def test_a_wrong_shape_of_history_is_refused(wrong):
    with pytest.raises(ValueError, match="A history is a list of"):
        as_histories(wrong, ITEM_IDS, "view")


def test_falling_times_are_refused():
    with pytest.raises(ValueError, match="history 1 has time 4 after 5"):
        as_histories([[("a", "view", 9)], [("a", "view", 5), ("b", "view", 4)]], ITEM_IDS, "view")
    far = 2**62 + 1  # the difference of the two is beyond 64 bits
    with pytest.raises(ValueError, match=f"history 0 has time {-far} after {far}"):
        as_histories([[("a", "view", far), ("b", "view", -far)]], ITEM_IDS, "view")


def test_an_unknown_behavior_is_refused():
    with pytest.raises(ValueError, match="Unknown behavior 'steal'"):
        as_histories([[("a", "steal")]], ITEM_IDS, "view")


def test_unknown_items_are_skipped_and_counted_or_refused():
    lists = [[("a", "view"), ("zzz", "view")], [("yyy", "buy")]]
    histories = as_histories(lists, ITEM_IDS, "view,buy")
    assert as_lists(histories) == [[(0, 0)], []]
    assert histories.num_unknown == 2
    with pytest.raises(ValueError, match=r"History 0 names the item 'zzz'.*4 items"):
        as_histories(lists, ITEM_IDS, "view,buy", unknown_items="error")
    with pytest.raises(ValueError, match="must be 'skip' or 'error', got 'drop'"):
        as_histories(lists, ITEM_IDS, "view,buy", unknown_items="drop")


def test_histories_of_another_catalog_are_mapped_by_id():
    mapped = as_histories(make(), ["d", "a"], "buy,view,like")
    assert as_lists(mapped) == [[(1, 1), (1, 0)], [], [(0, 1)]]
    assert mapped.num_unknown == 1
    same = as_histories(make(), ITEM_IDS, "view,buy")
    assert as_lists(same) == as_lists(make())


def test_select_repeats_and_reorders_like_a_list():
    histories = make()
    lists = as_lists(histories)
    assert as_lists(histories.select(np.array([2, 0, 0]))) == [lists[2], lists[0], lists[0]]
    assert as_lists(histories.select(np.array([False, True, True]))) == [lists[1], lists[2]]
    assert histories.select(np.array([2, 0])).users.tolist() == [2, 0]


def test_last_and_keep_cut_like_a_list():
    histories = make()
    lists = as_lists(histories)
    assert as_lists(histories.last(2)) == [history[-2:] for history in lists]
    assert as_lists(histories.keep(histories.behaviors == 1)) == [[(1, 1), (0, 1)], [], []]


def test_query_times_travel_with_their_rows():
    from dataclasses import replace

    histories = replace(make(), query_times=np.array([10, 20, 30]))
    queries = Queries(histories, make()).select(np.array([2, 1]))
    assert queries.histories.query_times is not None
    assert queries.histories.query_times.tolist() == [30, 20]
    assert len(queries) == 2


def test_ids_keep_their_type():
    assert as_id_array([3, 1]).tolist() == [3, 1]
    assert as_id_array(["3", "1"]).tolist() == ["3", "1"]
    assert as_id_array(np.array([3, 1], dtype=np.uint64)).tolist() == [3, 1]
    with pytest.raises(ValueError, match=rf"below {2**63} \(64 bits with sign\), got {2**63 + 5}. Make them text"):
        as_id_array(np.array([2**63 + 5, 1], dtype=np.uint64))
    assert ItemIndex(as_id_array([3, 1])).rows([1, 3, "3"]).tolist() == [1, 0, -1]
    assert ItemIndex(as_id_array(["x", "y"])).rows(np.array(["y", "z"], dtype=object)).tolist() == [1, -1]


# The moment of the query


def timed() -> Histories:
    users = [[("a", "view", 10), ("b", "view", 20), ("c", "view", 5000)], [], [("d", "buy", 20)]]
    return as_histories(users, ITEM_IDS, "view,buy")


@pytest.mark.parametrize(
    ("at", "expected", "num_later"),
    [
        (21, [[(0, 0), (1, 0)], [], [(3, 1)]], 1),
        (20, [[(0, 0)], [], []], 3),  # what happens in the very second is not before it
        ([6000, 5, 20], [[(0, 0), (1, 0), (2, 0)], [], []], 1),
        (0, [[], [], []], 4),
    ],
)
def test_a_query_knows_only_what_came_strictly_before(at, expected, num_later):
    known = asked_at(timed(), at)
    assert as_lists(known) == expected
    assert known.num_later == num_later
    assert known.query_times.tolist() == (at if isinstance(at, list) else [at] * 3)


@pytest.mark.parametrize(
    "at",
    [
        86_400,
        86_400.9,
        np.float32(86_400),
        np.int64(86_400),
        "1970-01-02",
        "1970-01-02T00:00:00Z",
        "1970-01-02T01:00:00+01:00",
        datetime.datetime(1970, 1, 2),
        datetime.datetime(1970, 1, 2, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
        np.datetime64("1970-01-02T00:00:00.5"),
        pd.Timestamp("1970-01-02"),
        ["1970-01-02", 86_400, datetime.datetime(1970, 1, 2)],
        np.array([86_400] * 3),
    ],
    ids=repr,
)
def test_a_moment_may_be_written_in_many_ways(at):
    assert asked_at(timed(), at).query_times.tolist() == [86_400] * 3


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ("yesterday", "'yesterday' is no moment"),
        (True, "`at` must be seconds since 1970, a datetime or ISO text, got True"),
        ([5, None, 6], "ISO text, got None"),
        (float("nan"), "`at` must be a finite number of seconds, got nan"),
        (np.datetime64("NaT"), r"ISO text, got .*datetime64\('NaT'"),
        ([5, pd.NaT, 6], "`at` cannot be read: NaT is no moment"),
        ([5, 6], "one moment or one per history, got 2 for 3 histories"),
    ],
)
def test_what_is_no_moment_is_refused(at, message):
    with pytest.raises(ValueError, match=message):
        asked_at(timed(), at)


def test_without_a_moment_the_histories_own_one_holds():
    own = replace(timed(), query_times=np.array([20, 20, 21]))
    known = asked_at(own)
    assert as_lists(known) == [[(0, 0)], [], [(3, 1)]]
    assert known.num_later == 2
    assert asked_at(known).num_later == 2
    assert asked_at(timed()).query_times is None


def test_histories_without_times_lose_nothing():
    known = asked_at(make(), 0)
    assert as_lists(known) == as_lists(make())
    assert (known.num_later, known.query_times.tolist()) == (0, [0] * 3)


def test_a_session_keeps_its_start_when_its_first_event_goes():
    users = [[("a", "view", 10), ("b", "view", 20), ("c", "view", 30), ("d", "view", 9000)], [("a", "buy", 50)]]
    histories = as_histories(users, ITEM_IDS, "view,buy")
    assert histories.session_starts.tolist() == [10, 10, 10, 9000, 50]
    assert histories.last(2).session_starts.tolist() == [30, 9000, 50]  # nobody noted the start
    noted = histories.with_session_times()
    assert noted.last(2).session_starts.tolist() == [10, 9000, 50]
    assert noted.select([1, 0]).keep(np.array([True, False, True, False, True])).session_starts.tolist() == [
        50,
        10,
        9000,
    ]
