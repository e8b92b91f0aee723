import numpy as np
import pytest

from genrec.data.histories import as_histories
from genrec.data.recent_events import LARGEST_COUNT, WINDOWS, RecentEvents

HOUR, DAY = 3600, 86400
NUM_ITEMS, NUM_BEHAVIORS = 12, 3


def events_of(items, times, behaviors=None, num_items=NUM_ITEMS):
    empty = np.zeros(0, dtype=np.int64)
    behaviors = [0] * len(items) if behaviors is None else behaviors
    return RecentEvents(empty, empty, empty, num_items, NUM_BEHAVIORS).with_events(items, behaviors, times)


def random_events(seed=0, num_events=400, span=20 * DAY):
    rng = np.random.default_rng(seed)
    items = rng.zipf(1.5, size=num_events) % NUM_ITEMS
    times = rng.integers(span, size=num_events) // 600 * 600 + DAY  # many at one moment
    return events_of(items, times, rng.integers(NUM_BEHAVIORS, size=num_events))


def naive_trending(events, time, num_candidates, windows):
    """Return candidates and their counts at one time, by the definition."""
    counts = np.zeros((NUM_ITEMS, NUM_BEHAVIORS, len(windows)), dtype=int)
    last = {}
    for number, (item, behavior, when) in enumerate(zip(events.items, events.behaviors, events.times, strict=True)):
        for column, window in enumerate(windows):
            if time - window < when < time:
                counts[item, behavior, column] += 1
                last[item] = number
    totals = np.maximum(counts.sum(axis=(0, 1)), 1)
    scores = (counts.sum(axis=1) / totals).sum(axis=1)
    ranked = sorted(last, key=lambda item: (-round(scores[item], 12), -last[item]))[:num_candidates]
    return [int(item) for item in ranked], counts[ranked]


def same(first, second):
    return all((getattr(first, name) == getattr(second, name)).all() for name in ("items", "counts", "rows"))


def test_the_log_is_in_the_order_of_time():
    histories = as_histories([[("a", "view", 30), ("b", "buy", 40)], [("b", "view", 5)]], ["a", "b"], "view,buy")
    events = RecentEvents.of(histories)
    assert (events.items.tolist(), events.behaviors.tolist(), events.times.tolist()) == (
        [1, 0, 1],
        [0, 0, 1],
        [5, 30, 40],
    )
    assert (events.num_items, events.num_behaviors, len(events)) == (2, 2, 3)


def test_a_log_without_times_is_refused():
    with pytest.raises(ValueError, match="needs the time of each event"):
        RecentEvents.of(as_histories([[("a", "view")]], ["a"], "view"))
    assert len(RecentEvents.of(as_histories([[]], ["a"], "view"))) == 0


def test_counts_by_hand():
    events = events_of([0, 1, 1, 2], [100, 200, 300, 400], [0, 1, 2, 0])
    trending = events.trending([400], num_candidates=3, windows=[150, 300, 1000])
    # Strictly before 400 and after 250, 100 and -600: [1], [1, 1], [0, 1, 1].
    assert trending.items.tolist() == [[1, 0, -1]]
    assert trending.counts[0, 0].tolist() == [[0, 0, 0], [0, 1, 1], [1, 1, 1]]
    assert trending.counts[0, 1].tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert trending.counts[0, 2].sum() == 0


def test_every_window_is_represented():
    """One event of the last hours outweighs many of long ago, as a share of its window."""
    old, new = [0] * 6 + [1] * 4, [2]
    events = events_of(old + new, [0] * 10 + [10 * DAY])
    assert events.trending([10 * DAY + 60], num_candidates=3).items.tolist() == [[2, 0, 1]]


def test_of_equal_items_the_newer_comes_first():
    events = events_of([3, 5, 4], [10, 20, 20])
    assert events.trending([21], num_candidates=3).items.tolist() == [[4, 5, 3]]
    assert events.trending([21], num_candidates=2).items.tolist() == [[4, 5]]


@pytest.mark.parametrize("num_candidates", [1, 4, NUM_ITEMS + 3])
@pytest.mark.parametrize("windows", [WINDOWS, (HOUR,)])
def test_the_sweep_agrees_with_a_loop(num_candidates, windows):
    events = random_events()
    times = np.random.default_rng(1).integers(23 * DAY, size=60) // 600 * 600
    trending = events.trending(times, num_candidates, windows)
    for asked, row in zip(times, trending.rows, strict=True):
        items, counts = naive_trending(events, asked, num_candidates, windows)
        assert trending.items[row].tolist() == items + [-1] * (num_candidates - len(items))
        assert (trending.counts[row, : len(items)] == counts).all()
        assert (trending.counts[row, len(items) :] == 0).all()


def test_asking_together_or_alone_is_the_same():
    events = random_events()
    times = np.random.default_rng(2).integers(22 * DAY, size=30)
    together = events.trending(times, 5)
    for asked, row in zip(times, together.rows, strict=True):
        alone = events.trending([asked], 5)
        assert (alone.items[0] == together.items[row]).all()
        assert (alone.counts[0] == together.counts[row]).all()


def test_equal_times_share_a_row():
    trending = random_events().trending([5 * DAY, 3 * DAY, 5 * DAY], 4)
    assert trending.rows.tolist() == [1, 0, 1]
    assert len(trending.items) == 2


def test_no_event_in_any_window_gives_empty_rows():
    events = random_events()
    for time in (0, DAY - 1, int(events.times[0]), 1000 * DAY):
        trending = events.trending([time], 4)
        assert (trending.items == -1).all()
        assert (trending.counts == 0).all()
    assert events.before(0).trending([DAY], 4).items.tolist() == [[-1] * 4]
    assert events.trending([], 4).items.shape == (0, 4)


def test_large_counts_saturate():
    events = events_of([2] * (LARGEST_COUNT + 10), [50] * (LARGEST_COUNT + 10))
    assert events.trending([60], 1).counts[0, 0, 0].tolist() == [LARGEST_COUNT] * len(WINDOWS)


@pytest.mark.parametrize("change", ["removed", "added", "changed"])
def test_perturbing_the_future_changes_nothing(change):
    events = random_events()
    for now in np.random.default_rng(3).choice(events.times, size=8):
        past = events.times < now
        kept = [column[past] for column in (events.items, events.behaviors, events.times)]
        future = [column[~past] for column in (events.items, events.behaviors, events.times)]
        if change == "added":
            future = [np.tile(column, 3) for column in future]
        if change == "changed":
            future = [(future[0] + 1) % NUM_ITEMS, (future[1] + 1) % NUM_BEHAVIORS, future[2] + 7]
        other = events.before(0).with_events(*kept)
        other = other if change == "removed" else other.with_events(*future)
        asked = np.array([now, now - HOUR, now - 5 * DAY])
        assert same(events.trending(asked, 6), other.trending(asked, 6))
        assert (events.counts(asked, 3 * DAY) == other.counts(asked, 3 * DAY)).all()


def test_new_events_count_at_once():
    events = random_events()
    now = int(events.times[-1]) + 60
    later = events.with_events([7] * 50, [1] * 50, [now] * 50)
    assert len(later) == len(events) + 50
    assert later.trending([now + 1], 1).items.tolist() == [[7]]
    assert same(later.trending([now], 5), events.trending([now], 5))


def test_late_arrivals_are_sorted_in():
    events = events_of([1, 2], [10, 30]).with_events([3, 4], [0, 0], [20, 10])
    assert (events.items.tolist(), events.times.tolist()) == ([1, 4, 3, 2], [10, 10, 20, 30])


def test_items_outside_the_catalog_are_left_out():
    assert len(events_of([1, -1, 2], [10, 20, 30])) == 2


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (([NUM_ITEMS], [0], [5]), r"`items` must lie in -1..11, got 12"),
        (([-2], [0], [5]), r"`items` must lie in -1..11, got -2"),
        (([0], [3], [5]), r"`behaviors` must lie in 0..2, got 3"),
        (([0, 1], [0], [5]), r"one entry per event, got shapes \[\(2,\), \(1,\), \(1,\)\]"),
    ],
)
def test_impossible_events_are_refused(events, message):
    with pytest.raises(ValueError, match=message):
        random_events().with_events(*events)


def test_impossible_questions_are_refused():
    with pytest.raises(ValueError, match="`num_candidates` must be at least 1, got 0"):
        random_events().trending([5], 0)
    for windows in ([], [HOUR, 0]):
        with pytest.raises(ValueError, match="`windows` must be one or more positive numbers"):
            random_events().trending([5], 3, windows)


def test_counts_agree_with_a_loop():
    events = random_events()
    times = np.array([0, 9 * DAY, 9 * DAY + 1, 40 * DAY])
    for window in (None, 2 * DAY):
        counts = events.counts(times, window)
        for row, time in enumerate(times):
            inside = (events.times < time) & (True if window is None else events.times > time - window)
            assert counts[row].tolist() == [int((inside & (events.items == item)).sum()) for item in range(NUM_ITEMS)]


def test_the_events_of_one_behavior():
    events = random_events()
    parts = [events.of_behavior(behavior) for behavior in range(NUM_BEHAVIORS)]
    assert sum(len(part) for part in parts) == len(events)
    assert all((part.behaviors == behavior).all() for behavior, part in enumerate(parts))
    total = sum(part.counts(np.array([9 * DAY])) for part in parts)
    assert (total == events.counts(np.array([9 * DAY]))).all()
