from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from genrec.data.histories import as_histories
from genrec.data.neighbors import neighbor_table

ITEMS = list(range(8))
HOUR = 3600


def random_log(seed=0, num_users=30):
    rng = np.random.default_rng(seed)
    users = []
    for _ in range(num_users):
        times = np.sort(rng.integers(1, 200, size=rng.integers(1, 12))) * HOUR
        users.append([(int(rng.zipf(1.6) % 8), "view", int(time)) for time in times])
    return as_histories(users, ITEMS, "view")


def naive_weights(histories, cutoff, window):
    """Return both weights of every ordered pair of items from events strictly before the cutoff, by the definition."""
    directed, events = defaultdict(float), np.zeros(len(ITEMS))
    for history in histories:
        items = [item for item, time in zip(history.items.tolist(), history.times, strict=True) if time < cutoff]
        for place, item in enumerate(items):
            events[item] += 1
            for distance, later in enumerate(items[place + 1 : place + 1 + window], 1):
                if later != item:
                    directed[item, later] += 1 / distance
    followers = defaultdict(float)
    for (first, _), weight in directed.items():
        followers[first] += weight
    pairs = {pair for first, second in directed for pair in ((first, second), (second, first))}
    return {
        (i, j): (
            directed[i, j] / followers[i] if directed[i, j] else 0.0,
            (directed[i, j] + directed[j, i]) / np.sqrt(events[i] * events[j]),
        )
        for i, j in sorted(pairs)
    }


@pytest.mark.parametrize("window", [1, 3, 100])
def test_every_slice_agrees_with_its_definition(window):
    histories = random_log()
    table = neighbor_table(histories, num_slices=5, num_neighbors=7, window=window)
    for cutoff, items, weights in zip(table.cutoffs, table.items, table.weights, strict=True):
        found = {
            (row, int(neighbor)): tuple(weights[row, place])
            for row in ITEMS
            for place, neighbor in enumerate(items[row])
            if neighbor >= 0
        }
        expected = naive_weights(histories, cutoff, window)
        assert found.keys() == expected.keys()
        for pair, both in expected.items():
            assert found[pair] == pytest.approx(both, abs=1e-6)


def test_the_strongest_neighbors_come_first_and_are_kept():
    histories = random_log()
    whole, short = neighbor_table(histories, 4, 7), neighbor_table(histories, 4, 3)
    sums = whole.weights.sum(axis=3)
    assert (np.diff(sums, axis=2) <= 1e-6).all()
    assert ((whole.items >= 0) == (sums > 0)).all()
    assert (short.items == whole.items[:, :, :3]).all()
    assert (short.weights == whole.weights[:, :, :3]).all()


def test_slices_hold_equal_numbers_of_events_and_the_first_is_empty():
    histories = random_log()
    table = neighbor_table(histories, num_slices=5)
    times = np.sort(histories.times)
    assert table.cutoffs[0] == times[0]
    assert table.cutoffs[-1] == times[-1] + 1
    shares = np.searchsorted(times, table.cutoffs) / len(times)
    assert shares == pytest.approx([0, 0.25, 0.5, 0.75, 1], abs=0.03)
    assert (table.items[0] == -1).all()
    assert (table.weights[0] == 0).all()


def test_a_time_gets_the_last_slice_that_ends_by_then():
    table = neighbor_table(random_log(), cutoffs=np.array([HOUR, 50 * HOUR, 100 * HOUR]))
    times = [0, HOUR, 50 * HOUR - 1, 50 * HOUR, 99 * HOUR, 100 * HOUR, 900 * HOUR]
    assert table.slices_of(times).tolist() == [0, 0, 0, 1, 1, 2, 2]


def test_a_time_before_all_given_cutoffs_gets_an_empty_slice():
    table = neighbor_table(random_log(), cutoffs=np.array([50 * HOUR]))
    assert table.slices_of([49 * HOUR, 50 * HOUR]).tolist() == [0, 1]
    assert (table.items[0] == -1).all()
    assert (table.items[1] >= 0).any()


def changed(histories, now):
    """Return the log with other items at and after a moment."""
    is_later = histories.times >= now
    return replace(histories, items=np.where(is_later, (histories.items + 3) % 8, histories.items))


def with_a_new_user(histories, now):
    """Return the log with one more user, who does at and after a moment what all others do."""
    is_later = histories.times >= now
    names = ("items", "behaviors", "sessions", "times")
    columns = {name: np.append(getattr(histories, name), getattr(histories, name)[is_later]) for name in names}
    columns["times"][len(is_later) :].sort()
    offsets = np.append(histories.offsets, len(columns["items"]))
    return replace(histories, **columns, offsets=offsets, users=np.append(histories.users, 99))


def test_perturbing_the_future_changes_no_table_of_the_past():
    histories = random_log()
    table = neighbor_table(histories, num_slices=6)
    for now in np.random.default_rng(5).choice(histories.times, size=6):
        others = [changed(histories, now), with_a_new_user(histories, now), histories.keep(histories.times < now)]
        past = slice(table.slices_of([now])[0] + 1)
        for other in (neighbor_table(log, cutoffs=table.cutoffs) for log in others):
            assert (other.items[past] == table.items[past]).all()
            assert (other.weights[past] == table.weights[past]).all()


def test_users_are_not_neighbors_and_items_not_their_own():
    one_each = as_histories([[(0, "view", 5)], [(1, "view", 6)]], ITEMS, "view")
    repeated = as_histories([[(0, "view", 5), (0, "view", 6)]], ITEMS, "view")
    for log in (one_each, repeated, as_histories([[], []], ITEMS, "view")):
        assert (neighbor_table(log, 2).items == -1).all()


def test_equal_neighbors_come_in_an_order_that_is_not_the_catalogs():
    """All others follow item 0 once at the same distance."""
    log = as_histories([[(0, "view", 5), (item, "view", 6)] for item in range(1, 8)], ITEMS, "view")
    first, second = (neighbor_table(log, 2).items[-1, 0, :7].tolist() for _ in range(2))
    assert sorted(first) == list(range(1, 8))
    assert first == second != sorted(first)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_slices": 1}, "`num_slices` must be at least 2, got 1"),
        ({"num_neighbors": 0}, "`num_neighbors` must be at least 1, got 0"),
        ({"window": 0}, "`window` must be at least 1, got 0"),
        ({"cutoffs": np.array([])}, r"`cutoffs` must be one or more rising moments in seconds, got \[\]"),
        ({"cutoffs": np.array([5, 5])}, r"rising moments in seconds, got \[5, 5\]"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        neighbor_table(random_log(), **settings)


def test_a_log_without_times_is_refused():
    with pytest.raises(ValueError, match="need the time of each event"):
        neighbor_table(as_histories([[(0, "view"), (1, "view")]], ITEMS, "view"))
