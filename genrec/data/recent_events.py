"""What happened lately: counts of all users' events in windows of time that end strictly before a moment.

A count taken at a query's time may hold nothing of that moment or later, from whichever user; else a model would be
trained on what it is asked about. Every function here takes the moment and looks only before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from genrec.data.histories import Histories
from genrec.data.item_counts import ItemCounts
from genrec.data.window_sweep import WindowSweep

SECONDS_PER_HOUR = 60 * 60
SECONDS_PER_DAY = 24 * SECONDS_PER_HOUR
WINDOWS = (6 * SECONDS_PER_HOUR, SECONDS_PER_DAY, 3 * SECONDS_PER_DAY, 14 * SECONDS_PER_DAY)
NO_ITEM = -1
LARGEST_COUNT = np.iinfo(np.uint16).max


@dataclass(frozen=True, eq=False)
class Trending:
    """The items with the most events before each asked time, one row per distinct time.

    Args:
        items: Catalog rows, the most trending first, `[distinct times, candidates]` int32; -1 fills short rows.
        counts: Events of each candidate in the open interval `(time - window, time)`,
            `[distinct times, candidates, behaviors, windows]` uint16; more than 65,535 are written as that many.
        rows: The row that holds each asked time, `[asked times]` int64.
    """

    items: np.ndarray
    counts: np.ndarray
    rows: np.ndarray


@dataclass(frozen=True, eq=False)
class RecentEvents:
    """All users' events in the order of time.

    Args:
        items: Catalog rows, `[events]` int64.
        behaviors: Ladder indices, `[events]` int64.
        times: Seconds, `[events]` int64, never falling.
        num_items: Items in the catalog.
        num_behaviors: Behaviors of the ladder.

    Example:
        >>> from genrec.data.histories import as_histories
        >>> log = as_histories([[("a", "view", 10), ("b", "view", 30)], [("b", "buy", 20)]], ["a", "b"], "view,buy")
        >>> trending = RecentEvents.of(log).trending(np.array([30, 31]), num_candidates=2, windows=[15, 21])
        >>> trending.items.tolist()
        [[1, 0], [1, -1]]
        >>> trending.counts[1, 0].tolist()  # item b before second 31: by behavior and window
        [[1, 1], [1, 1]]
    """

    items: np.ndarray
    behaviors: np.ndarray
    times: np.ndarray
    num_items: int
    num_behaviors: int

    def __post_init__(self) -> None:
        assert len(self.items) == len(self.behaviors) == len(self.times)
        assert (np.diff(self.times) >= 0).all(), "times must never fall"

    def __len__(self) -> int:
        return len(self.items)

    @classmethod
    def of(cls, histories: Histories) -> "RecentEvents":
        """Return all events of the histories; those of one moment in the order of the histories' rows.

        Raises:
            ValueError: If there are events but none has a time.
        """
        if len(histories.items) and not histories.times.any():
            raise ValueError("Counting what is recent needs the time of each event, but these histories have none.")
        none = np.zeros(0, dtype=np.int64)
        empty = cls(none, none, none, len(histories.item_ids), len(histories.ladder.names))
        return empty.with_events(histories.items, histories.behaviors, histories.times)

    def with_events(
        self,
        items: Sequence[int] | np.ndarray,
        behaviors: Sequence[int] | np.ndarray,
        times: Sequence[int] | np.ndarray,
    ) -> "RecentEvents":
        """Return a log that has these events too: what to call when something happens after training.

        Args:
            items: Catalog rows, `[new events]`; an event of an item outside the catalog (-1) is left out.
            behaviors: Ladder indices, `[new events]`.
            times: Seconds, `[new events]`, in any order; behind the old events of the same second.

        Raises:
            ValueError: If the three differ in length, or a row or a behavior is out of range.
        """
        new = [np.asarray(column, dtype=np.int64) for column in (items, behaviors, times)]
        if len({column.shape for column in new}) != 1 or new[0].ndim != 1:
            shapes = [column.shape for column in new]
            raise ValueError(f"`items`, `behaviors` and `times` must have one entry per event, got shapes {shapes}.")
        _check_range("items", new[0], NO_ITEM, self.num_items)
        _check_range("behaviors", new[1], 0, self.num_behaviors)
        known = new[0] != NO_ITEM
        old = (self.items, self.behaviors, self.times)
        merged = [np.concatenate([before, column[known]]) for before, column in zip(old, new, strict=True)]
        return self._at(np.argsort(merged[2], kind="stable"), *merged)

    @cached_property
    def item_counts(self) -> ItemCounts:
        """The same events by item, to look up single items."""
        return ItemCounts.of(self.items, self.behaviors, self.times, self.num_items, self.num_behaviors)

    def of_behavior(self, behavior: int) -> "RecentEvents":
        """Return the events of one behavior, a ladder index."""
        return self._at(np.flatnonzero(self.behaviors == behavior), self.items, self.behaviors, self.times)

    def before(self, time: int) -> "RecentEvents":
        """Return the events strictly before a moment in seconds."""
        end = int(np.searchsorted(self.times, time, side="left"))
        return self._at(slice(end), self.items, self.behaviors, self.times)

    def counts(self, times: np.ndarray, window: int | None = None) -> np.ndarray:
        """Return how many events each item of the catalog had before each time.

        Args:
            times: The asked times in seconds, `[asked times]`.
            window: Only events in the open interval `(time - window, time)`, seconds; None means all before the time.

        Returns:
            `[asked times, items]` int64.
        """
        times = np.asarray(times, dtype=np.int64)
        ends = np.searchsorted(self.times, times, side="left")
        starts = np.zeros_like(ends) if window is None else np.searchsorted(self.times, times - window, side="right")
        counts, running = np.zeros((len(times), self.num_items), dtype=np.int64), np.zeros(self.num_items, np.int64)
        start = end = 0
        for row in np.argsort(times, kind="stable").tolist():
            np.add.at(running, self.items[end : ends[row]], 1)
            np.subtract.at(running, self.items[start : starts[row]], 1)
            start, end = starts[row], ends[row]
            counts[row] = running
        return counts

    def trending(self, times: np.ndarray, num_candidates: int = 128, windows: Sequence[int] = WINDOWS) -> Trending:
        """Return the items with the most events before each time, and how many they had.

        An item's rank is by the sum over windows of its share of the window's events, so that every window is
        represented; of equal sums the item whose last event is newer comes first.

        Args:
            times: The asked times in seconds, `[asked times]`, in any order, repeated or not.
            num_candidates: Items per time; fewer had events, fewer are given.
            windows: Lengths in seconds of the windows before each time.

        Raises:
            ValueError: If `num_candidates` is below 1, or there is no window or one that is not positive.
        """
        if num_candidates < 1:
            raise ValueError(f"`num_candidates` must be at least 1, got {num_candidates}.")
        if len(windows) == 0 or min(windows) <= 0:
            raise ValueError(f"`windows` must be one or more positive numbers of seconds, got {list(windows)}.")
        distinct, rows = np.unique(np.asarray(times, dtype=np.int64), return_inverse=True)
        part = self._around(distinct, max(windows))
        sweep = WindowSweep(part.items, part.behaviors, part.times, self.num_items, self.num_behaviors, windows)
        shape = (len(distinct), num_candidates)
        candidates = np.full(shape, NO_ITEM, dtype=np.int32)
        counts = np.zeros((*shape, self.num_behaviors, len(windows)), dtype=np.uint16)
        for row, (items, item_counts) in enumerate(sweep.most_frequent(distinct, num_candidates)):
            candidates[row, : len(items)] = items
            counts[row, : len(items)] = np.minimum(item_counts, LARGEST_COUNT)
        return Trending(candidates, counts, rows.astype(np.int64))

    def _around(self, distinct: np.ndarray, longest_window: int) -> "RecentEvents":
        """Leave out what no window of these times holds, so that asking about one moment does not read years."""
        first, last = (int(distinct[0]), int(distinct[-1])) if len(distinct) else (0, 0)
        part = self.before(last)
        start = int(np.searchsorted(part.times, first - longest_window, side="right"))
        return part._at(slice(start, None), part.items, part.behaviors, part.times)

    def _at(
        self, chosen: np.ndarray | slice, items: np.ndarray, behaviors: np.ndarray, times: np.ndarray
    ) -> "RecentEvents":
        return replace(self, items=items[chosen], behaviors=behaviors[chosen], times=times[chosen])


def _check_range(name: str, values: np.ndarray, least: int, end: int) -> None:
    wrong = (values < least) | (values >= end)
    if wrong.any():
        raise ValueError(
            f"`{name}` must lie in {least}..{end - 1}, got {values[wrong][0]}. Map ids with the catalog and the ladder "
            "of this log."
        )
