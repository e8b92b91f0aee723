import uuid
from collections import Counter

import ibis
import numpy as np
import pyarrow as pa
import pytest

from genrec.data.behaviors import BehaviorLadder
from genrec.data.config import DataConfig
from genrec.data.filters import (
    drawn_users,
    filters_before_sessions,
    filters_by_count,
    filters_by_sessions,
    frequent,
    in_time_window,
    k_core,
    user_position,
    with_enough_sessions,
)


@pytest.fixture(scope="module")
def backend():
    return ibis.duckdb.connect()


@pytest.fixture(scope="module")
def materialize(backend):
    return lambda table: backend.create_table(f"t_{uuid.uuid4().hex}", table)


@pytest.fixture(scope="module")
def table_of(materialize):
    def build(**columns):
        rows = len(next(iter(columns.values())))
        return materialize(ibis.memtable(pa.table({"row": range(rows), **columns})))

    return build


def kept(table):
    return sorted(table.to_pyarrow()["row"].to_pylist())


def test_time_window_holds_its_start_and_not_its_end(table_of):
    table = table_of(time=[9, 10, 11, 20])
    assert kept(in_time_window(table, 10, 20)) == [1, 2]
    assert kept(in_time_window(table, 10, None)) == [1, 2, 3]
    assert kept(in_time_window(table, None, 10)) == [0]


def test_frequent_counts_rows_per_value(table_of):
    assert kept(frequent(table_of(user_id=["a", "b", "a", "c", "c"]), "user_id", 2)) == [0, 2, 3, 4]


def naive_k_core(pairs, k):
    rows = set(range(len(pairs)))
    while True:
        users = Counter(pairs[row][0] for row in rows)
        items = Counter(pairs[row][1] for row in rows)
        good = {row for row in rows if users[pairs[row][0]] >= k and items[pairs[row][1]] >= k}
        if good == rows:
            return sorted(rows)
        rows = good


@pytest.mark.parametrize("k", [2, 3, 4])
def test_k_core_equals_repeated_dropping(table_of, materialize, k):
    pairs = np.random.default_rng(k).integers(0, 22, (60, 2)).tolist()
    table = table_of(user_id=[pair[0] for pair in pairs], item_id=[pair[1] for pair in pairs])
    assert kept(k_core(table, k, materialize)) == naive_k_core(pairs, k)


def test_k_core_needs_several_rounds_on_a_chain(table_of, materialize):
    pairs = [(0, 0), (0, 1), (1, 1), (1, 2), (2, 2), (2, 3)]  # a path: every round takes both ends
    table = table_of(user_id=[pair[0] for pair in pairs], item_id=[pair[1] for pair in pairs])
    assert kept(k_core(table, 2, materialize)) == naive_k_core(pairs, 2) == []


def tables_of(backend):
    return {name for (name,) in backend.raw_sql("SHOW TABLES").fetchall()}


def test_k_core_keeps_one_rounds_table_at_a_time(backend, table_of, materialize):
    """A path of 40 users and items loses its two ends in every round."""
    table = table_of(user_id=[*range(40)] * 2, item_id=[*range(40), *range(1, 41)])
    before, most = tables_of(backend), []

    def counting(part):
        made = materialize(part)
        most.append(len(tables_of(backend) - before))
        return made

    core = k_core(table, 2, counting)
    assert len(most) > 5
    assert max(most) == 2
    assert tables_of(backend) - before == {core.op().name}
    assert kept(core) == []


def test_users_need_enough_sessions_not_enough_rows(table_of):
    table = table_of(user_id=["a", "a", "a", "b", "b", "b"], session=[0, 0, 0, 0, 1, 2])
    assert kept(with_enough_sessions(table, 3)) == [3, 4, 5]


def test_user_share_is_drawn_by_user_and_seed(table_of):
    table = table_of(user_id=list(range(500)) * 2)
    first, again, other = (kept(drawn_users(table, 0.3, seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert first == [row for row in range(1000) if user_position(row % 500, 1) < 0.3]
    assert 100 < len(first) / 2 < 200  # 150 expected, standard deviation 10


def test_user_share_does_not_depend_on_who_else_is_there(table_of):
    few = set(kept(drawn_users(table_of(user_id=list(range(50))), 0.5, 0)))
    assert few == {row for row in kept(drawn_users(table_of(user_id=list(range(90))), 0.5, 0)) if row < 50}
    assert set(kept(drawn_users(table_of(user_id=list(range(50))), 0.2, 0))) < few


def test_user_positions_are_fixed():
    # `printf 0:u1 | sha256sum`, the first eight bytes over 2**64: another number would silently draw other users.
    assert user_position("u1", 0) == pytest.approx(0x62D1B2D794372A9E / 2**64, abs=1e-12)
    assert user_position(7, 0) == user_position("7", 0)


def test_only_configured_filters_run_in_the_stated_order(materialize):
    ladder = BehaviorLadder.parse("view,buy")
    assert list(filters_before_sessions(ladder, DataConfig())) == []
    assert list(filters_by_count(DataConfig(), materialize)) == []
    assert list(filters_by_sessions(DataConfig())) == []
    config = DataConfig(
        other_behaviors="drop", start_time=5, user_share=0.5, min_interactions=2, k_core=2, short_users="drop", seed=3
    )
    before = [(rule.name, rule.reason) for rule in filters_before_sessions(ladder, config)]
    assert before == [
        ("behaviors", "the behavior is none of view, buy"),
        ("time_window", "outside the time from 5 to before the end"),
        ("user_share", "the user is not among the 0.5 drawn with seed 3"),
    ]
    assert [rule.name for rule in filters_by_count(config, materialize)] == ["min_interactions", "k_core"]
    assert [rule.name for rule in filters_by_sessions(config)] == ["min_sessions"]
