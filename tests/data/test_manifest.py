import ibis
import pyarrow as pa
import pytest

from genrec.data.config import DataConfig
from genrec.data.manifest import Counts, Step, compare_counts


def test_counts_are_distinct_users_and_items_and_all_rows():
    backend = ibis.duckdb.connect()
    table = backend.create_table("log", ibis.memtable(pa.table({"user_id": [1, 1, 2], "item_id": ["a", "a", "a"]})))
    assert Counts.of(table) == Counts(users=2, items=1, interactions=3)


def test_a_step_says_how_many_rows_it_dropped():
    step = Step("k_core", "too rare", Counts(3, 4, 10), Counts(2, 2, 7))
    assert step.dropped == 3
    assert step.to_dict() == {
        "name": "k_core",
        "reason": "too rare",
        "before": {"users": 3, "items": 4, "interactions": 10},
        "after": {"users": 2, "items": 2, "interactions": 7},
    }


def test_equal_counts_pass_the_strict_check_in_silence(caplog):
    config = DataConfig(expected_counts={"users": 3}, strict_counts=True)
    assert compare_counts({"users": 3, "items": 9}, config) == {"users": {"expected": 3, "counted": 3, "agree": True}}
    assert caplog.messages == []


def test_different_counts_are_reported_with_both_numbers():
    config = DataConfig(expected_counts={"users": 3000, "items": 9}, strict_counts=True)
    with pytest.raises(ValueError, match=r"\(users: expected 3,000, counted 2,999\)"):
        compare_counts({"users": 2999, "items": 9}, config)
