"""One sweep over time that keeps counting the events of several windows, for thousands of moments at once."""

from collections.abc import Iterator, Sequence

import numpy as np


class WindowSweep:
    """Counts of events in the windows before a moment that moves forward.

    A step to the next moment adds the events that it brings in and takes away those that it leaves behind, so that all
    steps together touch every event at most twice per window, however many moments are asked about.

    Args:
        items: Catalog rows, `[events]`.
        behaviors: Ladder indices, `[events]`.
        times: Seconds, `[events]`, never falling.
        num_items: Items in the catalog.
        num_behaviors: Behaviors of the ladder.
        windows: Lengths in seconds; a window before `time` is the open interval `(time - length, time)`.
    """

    def __init__(
        self,
        items: np.ndarray,
        behaviors: np.ndarray,
        times: np.ndarray,
        num_items: int,
        num_behaviors: int,
        windows: Sequence[int],
    ) -> None:
        self.items = items
        self.behaviors = behaviors
        self.times = times
        self.num_items = num_items
        self.num_behaviors = num_behaviors
        self.windows = windows

    def most_frequent(self, moments: np.ndarray, num_items: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield for each moment the items with the highest sum over windows of their share of the window's events.

        Of equal sums the item whose last event is newer comes first. Items without an event are never chosen.

        Args:
            moments: Seconds, `[moments]`, rising.
            num_items: How many to choose.

        Yields:
            Items `[chosen]`, best first, and their counts `[chosen, behaviors, windows]`.
        """
        by_behavior = np.zeros((self.num_items, self.num_behaviors, len(self.windows)), dtype=np.int32)
        by_item = np.zeros((len(self.windows), self.num_items))  # floats hold whole numbers exactly, and multiply fast
        last_event = np.zeros(self.num_items, dtype=np.int64)
        ends = np.searchsorted(self.times, moments, side="left")
        starts = [np.searchsorted(self.times, moments - window, side="right") for window in self.windows]
        shares = 1 / np.maximum(ends[:, None] - np.stack(starts, axis=1), 1)
        rows = self.items * self.num_behaviors + self.behaviors
        cells = by_behavior.reshape(-1, len(self.windows)).T
        windows = [_Window(self.items, rows, *counts) for counts in zip(by_item, cells, strict=True)]
        chosen, seen = np.zeros(0, dtype=np.int64), 0
        for row, end in enumerate(ends.tolist()):
            for window, window_starts in zip(windows, starts, strict=True):
                window.move(int(window_starts[row]), end)
            seen = max(seen, min(window.start for window in windows))  # what no window holds is not asked for
            last_event[self.items[seen:end]] = np.arange(seen, end)
            seen = end
            chosen = _highest(_weighted_sum(by_item, shares[row]), last_event, num_items, chosen)
            yield chosen, by_behavior[chosen]


class _Window:
    """One window's events, `start` to `end`, and their counts.

    Args:
        items: The item of each event.
        rows: Its item and behavior as one number.
        by_item: What to count items in.
        by_row: What to count both in.
    """

    def __init__(self, items: np.ndarray, rows: np.ndarray, by_item: np.ndarray, by_row: np.ndarray) -> None:
        self.counted = ((by_item, items), (by_row, rows))
        self.start = self.end = 0

    def move(self, start: int, end: int) -> None:
        """Hold the events from `start` to `end`; neither may go back."""
        self._count(slice(self.start, min(start, self.end)), -1)
        self._count(slice(max(start, self.end), end), 1)
        self.start, self.end = start, end

    def _count(self, events: slice, sign: int) -> None:
        if events.start < events.stop:
            for counts, places in self.counted:
                np.add.at(counts, places[events], counts.dtype.type(sign))


def _weighted_sum(counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the sum over windows of count times weight, `[items]`: equal counts give equal sums to the last bit."""
    total = counts[0] * weights[0]
    for count, weight in zip(counts[1:], weights[1:], strict=True):
        total += count * weight
    return total


def _highest(scores: np.ndarray, last_event: np.ndarray, num_items: int, before: np.ndarray) -> np.ndarray:
    """Return the items of the highest positive scores, best first; of equal scores, of the newest last event.

    Args:
        scores: `[items]`.
        last_event: The number of each item's last event, `[items]`.
        num_items: How many.
        before: The items chosen a moment before. What is chosen now scores at least as high as the lowest of them,
            so that most of the catalog is left out by one comparison.
    """
    bound = scores[before].min() if len(before) == num_items else 0.0
    items = np.flatnonzero(scores >= bound) if bound > 0 else np.flatnonzero(scores)
    if len(items) > num_items:
        kept = scores[items]
        threshold = np.partition(kept, len(items) - num_items)[len(items) - num_items]
        above, tied = items[kept > threshold], items[kept == threshold]
        num_tied = num_items - len(above)
        newest = np.argpartition(-last_event[tied], num_tied - 1)[:num_tied]
        items = np.concatenate([above, tied[newest]])
    return items[np.lexsort((-last_event[items], -scores[items]))]
