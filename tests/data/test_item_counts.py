import numpy as np

from genrec.data.item_counts import ItemCounts


def test_counts_agree_with_plain_loops():
    rng = np.random.default_rng(0)
    items, behaviors, times = rng.integers(6, size=90), rng.integers(3, size=90), rng.integers(50, size=90)
    counts = ItemCounts.of(items, behaviors, times, 7, 3)
    asked_items, moments, asked = rng.integers(7, size=(12, 4)), rng.integers(-2, 55, size=12), rng.integers(3, size=12)
    found = counts.before(asked_items, moments, asked, windows=[1, 7, 1000])
    for query, place in np.ndindex(asked_items.shape):
        now = moments[query]
        is_before = (items == asked_items[query, place]) & (times < now)
        expected = [is_before.sum(), (is_before & (behaviors == asked[query])).sum()]
        expected += [(is_before & (times > now - window)).sum() for window in (1, 7, 1000)]
        assert found[query, place].tolist() == expected


def test_an_item_that_is_not_there_may_be_asked_for():
    none = np.zeros(0, dtype=np.int64)
    counts = ItemCounts.of(none, none, none, 3, 2)
    assert counts.before(np.array([[-1, 2]]), np.array([5]), np.array([1]), [4]).tolist() == [[[0, 0, 0], [0, 0, 0]]]
