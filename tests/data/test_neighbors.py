"""Which items go together, against the definition in plain loops, and unmoved by the future."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from genrec.data.histories import Histories, as_histories
from genrec.data.neighbors import PRIOR_PAIRS, NeighborIndex

ITEMS = list(range(8))
HOUR = 3600


def random_log(seed: int = 0, num_users: int = 30) -> Histories:
    rng = np.random.default_rng(seed)
    users = []
    for _ in range(num_users):
        times = np.sort(rng.integers(1, 200, size=rng.integers(1, 12))) * HOUR
        users.append([(int(rng.zipf(1.6) % 8), "view", int(time)) for time in times])
    return as_histories(users, ITEMS, "view")


def naive_nearby(histories: Histories, recent: list[int], now: int, window: int) -> dict[int, list[float]]:
    """Return of each neighbor: together, after, pairs, first rank, newest; every pair before now is looked at."""
    pairs = defaultdict(list)
    for history in histories:
        events = list(zip(history.items.tolist(), history.times.tolist(), strict=True))
        for place, (item, _) in enumerate(events):
            for distance, (later, time) in enumerate(events[place + 1 : place + 1 + window], 1):
                if later != item and time < now:
                    pairs[item].append((later, distance, time))
                    pairs[later].append((item, -distance, time))
    found = defaultdict(lambda: [0.0, 0.0, 0, 99, 0])
    for rank, item in enumerate(recent):
        norm = (len(pairs[item]) + PRIOR_PAIRS) ** 0.5
        for other, step, time in pairs[item]:
            weight = 1 / (abs(step) * (1 + rank) * norm)
            together, after, count, first, newest = found[other]
            after += weight * (step > 0)
            found[other] = [together + weight, after, count + 1, min(first, rank), max(newest, time)]
    return found


@pytest.mark.parametrize("window", [1, 3, 100])
def test_what_is_nearby_agrees_with_its_definition(window: int):
    histories = random_log()
    index = NeighborIndex.of(histories, window)
    rng = np.random.default_rng(7)
    for now in rng.integers(1, 220 * HOUR, size=30).tolist():
        recent = rng.choice(8, size=2, replace=False)
        found = index.nearby(recent[None], np.array([now]), num_neighbors=8, num_pairs=1000)
        expected = naive_nearby(histories, recent.tolist(), now, window)
        items = found.items[0][found.items[0] >= 0].tolist()
        assert sorted(items) == sorted(expected)
        for place, item in enumerate(items):
            assert [float(part[0, place]) for part in found[1:]] == pytest.approx(expected[item])
        order = [(item not in recent, -found.together[0, place]) for place, item in enumerate(items)]
        assert order == sorted(order)
        assert all((part[0, len(items) :] == 0).all() for part in found[1:])


def test_a_short_list_is_the_beginning_of_a_long_one():
    index, recent, times = NeighborIndex.of(random_log()), np.array([[0, 1], [2, -1]]), np.full(2, 300 * HOUR)
    whole, short = index.nearby(recent, times, 6), index.nearby(recent, times, 2)
    for name in whole._fields:
        assert (getattr(whole, name)[:, :2] == getattr(short, name)).all()


def test_only_the_newest_pairs_are_looked_at():
    """Item 0 is followed by 1 at first and by 2 in the end."""
    log = as_histories(
        [[(0, "view", 10 * n), (1 if n < 5 else 2, "view", 10 * n + 1)] for n in range(1, 9)], ITEMS, "view"
    )
    index = NeighborIndex.of(log)
    found = index.nearby(np.array([[0]]), np.array([1000]), num_neighbors=3, num_pairs=3)
    assert found.items.tolist() == [[2, -1, -1]]
    assert (found.num_pairs[0, 0], found.newest[0, 0]) == (3, 81)
    both = index.nearby(np.array([[0]]), np.array([1000]), num_neighbors=3, num_pairs=8)
    assert both.items.tolist() in ([[1, 2, -1]], [[2, 1, -1]])


def test_the_users_own_items_come_first_and_weights_add_up():
    log = as_histories([[(0, "view", 10), (1, "view", 20), (2, "view", 30)]], ITEMS, "view")
    found = NeighborIndex.of(log).nearby(np.array([[1, 0, -1]]), np.array([31]), num_neighbors=4)
    norm = (2 + PRIOR_PAIRS) ** 0.5
    assert found.items.tolist() == [[0, 1, 2, -1]]
    np.testing.assert_allclose(found.together[0] * norm, [1, 1 / 2, 1 + 1 / 2 / 2, 0])
    np.testing.assert_allclose(found.after[0] * norm, [0, 1 / 2, 1 + 1 / 2 / 2, 0])
    assert found.num_pairs.tolist() == [[1, 1, 2, 0]]
    assert found.first_rank.tolist() == [[0, 1, 0, 0]]


def with_a_new_user(histories: Histories, now: int) -> Histories:
    """Return the log with one more user, who does at and after a moment what all others do."""
    is_later = histories.times >= now
    names = ("items", "behaviors", "sessions", "times")
    columns = {name: np.append(getattr(histories, name), getattr(histories, name)[is_later]) for name in names}
    columns["times"][len(is_later) :].sort()
    offsets = np.append(histories.offsets, len(columns["items"]))
    return replace(histories, **columns, offsets=offsets, users=np.append(histories.users, 99))


def test_perturbing_the_future_changes_nothing():
    histories = random_log()
    index = NeighborIndex.of(histories)
    recent = np.array([[0, 1], [3, -1], [5, 2]])
    for now in np.random.default_rng(5).choice(histories.times, size=8):
        is_later = histories.times >= now
        changed = replace(histories, items=np.where(is_later, (histories.items + 3) % 8, histories.items))
        expected = index.nearby(recent, np.full(3, now), 7)
        for other in (changed, with_a_new_user(histories, now), histories.keep(~is_later)):
            found = NeighborIndex.of(other).nearby(recent, np.full(3, now), 7)
            for before, after in zip(expected, found, strict=True):
                assert (before == after).all()


def test_there_is_nothing_where_there_are_no_pairs():
    one_each = as_histories([[(0, "view", 5)], [(1, "view", 6)]], ITEMS, "view")
    repeated = as_histories([[(0, "view", 5), (0, "view", 6)]], ITEMS, "view")
    for log in (one_each, repeated, as_histories([[], []], ITEMS, "view")):
        assert (NeighborIndex.of(log).nearby(np.array([[0, 1]]), np.array([99]), 2).items == -1).all()
    index = NeighborIndex.of(random_log())
    assert (index.nearby(np.array([[-1, -1]]), np.array([300 * HOUR]), 2).items == -1).all()
    assert (index.nearby(np.array([[0, 1]]), np.array([-5]), 2).items == -1).all()
    assert index.nearby(np.zeros((0, 2), dtype=np.int64), np.zeros(0, dtype=np.int64), 3).items.shape == (0, 3)


def test_equal_neighbors_come_in_an_order_that_is_not_the_catalogs():
    """All others follow item 0 once at the same distance."""
    log = as_histories([[(0, "view", 5), (item, "view", 6)] for item in range(1, 8)], ITEMS, "view")
    first, second = (
        NeighborIndex.of(log).nearby(np.array([[0]]), np.array([9]), 7).items[0].tolist() for _ in range(2)
    )
    assert sorted(first) == list(range(1, 8))
    assert first == second != sorted(first)


@pytest.mark.parametrize("window", [0, 128])
def test_an_impossible_window_is_refused(window: int):
    with pytest.raises(ValueError, match=f"`window` must be 1 to 127 events, got {window}"):
        NeighborIndex.of(random_log(), window)


def test_a_log_without_times_is_refused():
    with pytest.raises(ValueError, match="need the time of each event"):
        NeighborIndex.of(as_histories([[(0, "view"), (1, "view")]], ITEMS, "view"))
