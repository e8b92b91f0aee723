"""One sweep over time that keeps counting the events of several windows, for thousands of moments at once."""

from collections.abc import Iterator, Sequence

import numpy as np


class WindowSweep:
    """Counts of events in the windows before a moment that moves forward.

    A step to the next moment adds the events that it brings in and takes away those that it leaves behind, so that all
    steps together touch every event twice per window, however many moments are asked about.

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
        changes, steps = self._changes(moments)
        ends = np.searchsorted(self.times, moments, side="left")
        shares = 1 / np.maximum(self._totals(moments, ends), 1)
        chosen, seen = np.zeros(0, dtype=np.int64), 0
        for row, end in enumerate(ends.tolist()):
            part = slice(steps[row], steps[row + 1])
            np.add.at(by_behavior.reshape(-1), changes["by_behavior"][part], changes["sign"][part])
            np.add.at(by_item.reshape(-1), changes["by_item"][part], changes["sign"][part])
            last_event[self.items[seen:end]] = np.arange(seen, end)
            seen = end
            chosen = _highest(_weighted_sum(by_item, shares[row]), last_event, num_items, chosen)
            yield chosen, by_behavior[chosen]

    def _totals(self, moments: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Return the events in each window before each moment, `[moments, windows]`."""
        starts = [np.searchsorted(self.times, moments - window, side="right") for window in self.windows]
        return ends[:, None] - np.stack(starts, axis=1)

    def _changes(self, moments: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Return what to add where, in the order of the moments, and where the changes of each moment begin."""
        enters = np.searchsorted(moments, self.times, side="right")
        columns: dict[str, list[np.ndarray]] = {"step": [], "by_behavior": [], "by_item": [], "sign": []}
        for number, window in enumerate(self.windows):
            leaves = np.searchsorted(moments, self.times + window, side="left")
            cell = (self.items * self.num_behaviors + self.behaviors) * len(self.windows) + number
            for step, sign in ((enters, 1), (leaves, -1)):
                columns["step"].append(step)
                columns["by_behavior"].append(cell)
                columns["by_item"].append(number * self.num_items + self.items)
                columns["sign"].append(np.full(len(cell), sign, dtype=np.int32))
        merged = {name: np.concatenate(parts) for name, parts in columns.items()}
        order = np.argsort(merged.pop("step"), kind="stable")
        steps = np.searchsorted(np.concatenate(columns["step"])[order], np.arange(len(moments) + 1))
        return {name: values[order] for name, values in merged.items()}, steps


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
