import numpy as np
import pytest

from genrec.data.histories import Queries, as_histories
from genrec.evaluation.protocols import ItemSets, rows_between, task_of

ITEMS = ["a", "b", "c", "d"]
LADDER = "view,cart,buy"


def queries(past, future, target_items=ITEMS):
    return Queries(as_histories(past, ITEMS, LADDER), as_histories(future, target_items, LADDER))


def sets_of(item_sets):
    records = item_sets.pairs // item_sets.num_items
    return [set(item_sets.items[records == record].tolist()) for record in range(item_sets.num_records)]


def test_a_record_is_a_user_with_the_behavior_and_its_targets_are_distinct():
    asked = queries(
        past=[[], [("a", "view")], []],
        future=[
            [("a", "view"), ("b", "view"), ("a", "view"), ("c", "buy")],
            [("d", "cart")],
            [("d", "view")],
        ],
    )
    views = task_of(asked, "view")
    assert views.rows.tolist() == [0, 2]
    assert sets_of(views.targets) == [{0, 1}, {3}]
    assert task_of(asked, "buy").rows.tolist() == [0]
    assert task_of(asked, "cart").rows.tolist() == [1]
    assert sets_of(task_of(asked, "cart").seen) == [{0}]


def test_a_behavior_nobody_shows_has_no_record():
    task = task_of(queries([[("a", "view")]], [[("b", "view")]]), "buy")
    assert len(task) == 0
    assert task.targets.sizes.tolist() == []


def test_an_unknown_behavior_is_refused():
    with pytest.raises(ValueError, match="Unknown behavior 'like'"):
        task_of(queries([[]], [[("a", "view")]]), "like")


def test_targets_outside_the_catalog_are_left_out():
    asked = queries([[], []], [[("x", "buy"), ("b", "buy")], [("x", "buy")]], target_items=["x", "b"])
    task = task_of(asked, "buy")
    assert task.rows.tolist() == [0]
    assert sets_of(task.targets) == [{1}]


def test_slices_part_the_targets():
    asked = queries(
        past=[[("a", "view"), ("c", "cart")], [("d", "view")]],
        future=[[("a", "buy"), ("b", "buy"), ("c", "buy")], [("b", "buy")]],
    )
    slices = task_of(asked, "buy").slices(item_counts=np.array([0, 3, 1, 1]))
    assert sets_of(slices["repeat"]) == [{0, 2}, set()]
    assert sets_of(slices["first-time"]) == [{1}, {1}]
    assert sets_of(slices["cold"]) == [{0}, set()]
    assert sets_of(slices["warm"]) == [{1, 2}, {1}]
    assert slices["cold"].sizes.tolist() == [1, 0]


def test_without_training_counts_there_is_neither_cold_nor_warm():
    assert set(task_of(queries([[]], [[("a", "buy")]]), "buy").slices(None)) == {"repeat", "first-time"}


def test_contains_agrees_with_python_sets():
    rng = np.random.default_rng(0)
    records, items = rng.integers(20, size=200), rng.integers(30, size=200)
    truth = [set(items[records == record].tolist()) for record in range(20)]
    item_sets = ItemSets.of(records, items, num_records=20, num_items=30)
    asked = rng.integers(-1, 30, size=(20, 7))
    expected = [[item in truth[record] for item in row] for record, row in enumerate(asked.tolist())]
    assert item_sets.contains(asked).tolist() == expected
    assert item_sets.sizes.tolist() == [len(one) for one in truth]


def test_an_absent_item_is_not_the_last_item_of_the_user_before():
    item_sets = ItemSets.of(np.array([0]), np.array([3]), num_records=2, num_items=4)
    assert item_sets.contains(np.array([[-1], [-1]])).tolist() == [[False], [False]]


def test_no_targets_at_all_contain_nothing():
    empty = ItemSets.of(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), num_records=2, num_items=4)
    assert not empty.contains(np.array([[0], [1]])).any()
    assert empty.sizes.tolist() == [0, 0]


def test_rows_between_catalogs_go_by_id():
    assert rows_between(np.array(["a", "b", "z"], dtype=object), np.array(["b", "a"], dtype=object)).tolist() == [
        1,
        0,
        -1,
    ]
    assert rows_between(np.array([5, 6]), np.array([5, 6])).tolist() == [0, 1]
