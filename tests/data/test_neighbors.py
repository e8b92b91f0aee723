"""Which items go together, against the definition in plain loops, and unmoved by the future."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from genrec.data.histories import Histories, as_histories
from genrec.data.neighbors import PRIOR_PAIRS, NeighborIndex

ITEMS = list(range(8))
HOUR = 3600
DAY = 24 * HOUR


def random_log(seed: int = 0, num_users: int = 30) -> Histories:
    """Users of a few sessions: an hour or two inside one, ten hours and more between two."""
    rng = np.random.default_rng(seed)
    users = []
    for _ in range(num_users):
        pauses = rng.choice([0, 600, 36_000], size=rng.integers(1, 16))
        times = HOUR + rng.integers(0, 20 * HOUR) + np.cumsum(pauses)
        users.append([(int(rng.zipf(1.6) % 8), "view", int(time)) for time in times])
    return as_histories(users, ITEMS, "view")


def naive_pairs(histories: Histories, session_window: int, back_window: int) -> list[tuple[int, int, str, int]]:
    """Return (item, other, kind, time) of all pairs."""
    pairs = []
    for history in histories:
        before: list[int] = []
        for session in np.unique(history.sessions):
            met: dict[int, int] = {}
            for item, time, at in zip(history.items.tolist(), history.times.tolist(), history.sessions, strict=True):
                if at == session:
                    met.setdefault(item, time)
            order = list(met)
            for place, item in enumerate(order):
                for other in order[max(place - session_window + 1, 0) : place]:
                    pairs += [(item, other, "same", met[item]), (other, item, "same", met[item])]
                for other in set(before[-back_window:] if back_window else []) - {item}:
                    if place < session_window:
                        pairs += [(other, item, "later", met[item]), (item, other, "earlier", met[item])]
            before += order
    return pairs


def naive_nearby(
    histories: Histories, recent: list[int], now: int, session_window: int, back_window: int
) -> dict[int, list[float]]:
    """Return of each neighbor: together, after, lately, pairs, first rank, newest; all pairs before now count."""
    pairs = defaultdict(list)
    for item, other, kind, time in naive_pairs(histories, session_window, back_window):
        if time < now:
            pairs[item].append((other, {"same": 1, "earlier": 0.3, "later": 0}[kind], float(kind == "later"), time))
    found = defaultdict(lambda: [0.0, 0.0, 0.0, 0, 99, 0])
    for rank, item in enumerate(recent):
        of_together, of_after = (
            (sum(pair[column] for pair in pairs[item]) + PRIOR_PAIRS) ** 0.5 * (1 + rank) for column in (1, 2)
        )
        for other, together, after, time in pairs[item]:
            known, shares = found[other], [together / of_together, after / of_after]
            lately = known[2] + sum(shares) / (1 + (now - time) / DAY)
            sums = [known[0] + shares[0], known[1] + shares[1], lately]
            found[other] = [*sums, known[3] + 1, min(known[4], rank), max(known[5], time)]
    return found


@pytest.mark.parametrize(("session_window", "back_window"), [(1, 0), (1, 3), (3, 0), (3, 2), (100, 100)])
def test_what_is_nearby_agrees_with_its_definition(session_window: int, back_window: int):
    histories = random_log()
    index = NeighborIndex.of(histories, session_window, back_window)
    rng = np.random.default_rng(7)
    for now in rng.integers(HOUR, 60 * HOUR, size=30).tolist():
        recent = rng.choice(8, size=2, replace=False)
        found = index.nearby(recent[None], np.array([now]), num_neighbors=8, num_pairs=1000)
        expected = naive_nearby(histories, recent.tolist(), now, session_window, back_window)
        items = found.items[0][found.items[0] >= 0].tolist()
        assert sorted(items) == sorted(expected)
        for place, item in enumerate(items):
            assert [float(part[0, place]) for part in found[1:]] == pytest.approx(expected[item])
        assert all((part[0, len(items) :] == 0).all() for part in found[1:])


def test_the_strongest_and_the_latest_come_in_turn():
    """All others go with item 0: item 1 in five sessions long ago, 2 in four, 3 in three; 4 and 5 once, and lately."""
    days = [(1, 1)] * 5 + [(2, 2)] * 4 + [(3, 3)] * 3 + [(4, 99), (5, 98)]
    users = [[(0, "view", day * DAY), (item, "view", day * DAY + 1)] for item, day in days]
    found = NeighborIndex.of(as_histories(users, ITEMS, "view")).nearby(np.array([[0]]), np.array([100 * DAY]), 6)
    assert found.items.tolist() == [[1, 4, 2, 5, 3, -1]]
    np.testing.assert_array_equal(np.argsort(-found.together[0, :3]), [0, 2, 1])
    np.testing.assert_array_equal(np.argsort(-found.lately[0, :5])[:2], [1, 3])


def test_a_short_list_is_the_beginning_of_a_long_one():
    index, recent, times = NeighborIndex.of(random_log()), np.array([[0, 1], [2, -1]]), np.full(2, 300 * HOUR)
    whole, short = index.nearby(recent, times, 6), index.nearby(recent, times, 2)
    for name in whole._fields:
        assert (getattr(whole, name)[:, :2] == getattr(short, name)).all()


def test_only_the_newest_pairs_are_looked_at():
    """Item 0 goes with 1 at first and with 2 in the end."""
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
    """Items 0 and 1 in one session, item 2 in the next; the user met 1 last and 0 before it."""
    log = as_histories([[(0, "view", 10), (1, "view", 20), (2, "view", 9000)]], ITEMS, "view")
    found = NeighborIndex.of(log).nearby(np.array([[1, 0, -1]]), np.array([9001]), num_neighbors=4)
    assert set(found.items[0, :2].tolist()) == {0, 1}
    assert found.items[0, 2:].tolist() == [2, -1]
    norm = (1 + PRIOR_PAIRS) ** 0.5
    by_item = dict(
        zip(found.items[0].tolist(), zip(*(part[0].tolist() for part in found[1:]), strict=True), strict=True)
    )
    long_ago, just_now = 1 / (1 + (9001 - 20) / DAY), 1 / (1 + 1 / DAY)
    assert by_item[0][:5] == pytest.approx((1 / norm, 0, long_ago / norm, 1, 0))
    assert by_item[1][:5] == pytest.approx((1 / 2 / norm, 0, long_ago / 2 / norm, 1, 1))
    assert by_item[2][:5] == pytest.approx((0, 1.5 / norm, 1.5 * just_now / norm, 2, 0))


def test_an_item_met_often_in_a_session_is_one_pair():
    log = as_histories([[(0, "view", 10), (1, "view", 20), (1, "view", 30), (0, "view", 40)]], ITEMS, "view")
    found = NeighborIndex.of(log).nearby(np.array([[0]]), np.array([41]), num_neighbors=2)
    assert (found.items.tolist(), found.num_pairs.tolist(), found.newest.tolist()) == ([[1, -1]], [[1, 0]], [[20, 0]])


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


@pytest.mark.parametrize(("name", "value", "least"), [("session_window", 0, 1), ("back_window", -1, 0)])
def test_an_impossible_window_is_refused(name: str, value: int, least: int):
    with pytest.raises(ValueError, match=f"`{name}` must be at least {least}, got {value}"):
        NeighborIndex.of(random_log(), **{name: value})


def test_a_log_without_times_is_refused():
    with pytest.raises(ValueError, match="need the time of each event"):
        NeighborIndex.of(as_histories([[(0, "view"), (1, "view")]], ITEMS, "view"))
