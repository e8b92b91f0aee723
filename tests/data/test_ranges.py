import numpy as np
import pytest

from genrec.data.ranges import first_at_or_after, grouped, stable_order


def test_groups_are_sorted_by_time_and_found():
    rng = np.random.default_rng(0)
    groups, times = rng.integers(5, size=60), rng.integers(20, size=60)
    order, starts = grouped(groups, times, num_groups=7)
    expected = sorted(range(60), key=lambda event: (groups[event], times[event], event))
    assert order.tolist() == expected
    assert np.diff(starts).tolist() == [int((groups == group).sum()) for group in range(7)]


def test_every_range_is_searched_as_numpy_would():
    rng = np.random.default_rng(1)
    groups, times = rng.integers(6, size=80), rng.integers(20, size=80)
    order, starts = grouped(groups, times, num_groups=8)
    asked, moments = rng.integers(8, size=(9, 4)), rng.integers(-1, 22, size=(9, 4))
    found = first_at_or_after(times[order], starts[asked], starts[asked + 1], moments)
    for place in np.ndindex(asked.shape):
        part = times[order][starts[asked[place]] : starts[asked[place] + 1]]
        assert found[place] == starts[asked[place]] + np.searchsorted(part, moments[place])


def test_nothing_is_found_among_no_events():
    none, starts = np.zeros(0, dtype=np.int64), np.zeros(2, dtype=np.int64)
    assert first_at_or_after(none, starts, starts, np.ones(2)).tolist() == [0, 0]


@pytest.mark.parametrize("largest", [1, 50, 2**40, 2**62])  # the last is too large to be packed with a place
def test_the_packed_order_is_the_stable_one(largest: int):
    keys = np.random.default_rng(2).integers(largest, size=300, endpoint=True)
    keys[::7] = keys[0]
    assert stable_order(keys).tolist() == np.argsort(keys, kind="stable").tolist()


def test_no_keys_have_no_order():
    assert stable_order(np.zeros(0, dtype=np.int64)).tolist() == []
