"""How often given items were met before given moments: looked up, not counted through the whole catalog."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genrec.data.ranges import first_at_or_after, grouped


@dataclass(frozen=True, eq=False)
class ItemCounts:
    """The seconds of all events, by item and behavior.

    Args:
        times: Seconds, by item and in the order of time, `[events]` int64.
        starts: Where each item's begin, `[items + 1]`.
        behavior_times: Seconds, by item, behavior and time, `[events]` int64.
        behavior_starts: Where those of each item and behavior begin, `[items * behaviors + 1]`.
        num_behaviors: Behaviors of the ladder.

    Example:
        >>> import numpy as np
        >>> counts = ItemCounts.of(np.array([0, 0, 1]), np.array([0, 1, 1]), np.array([10, 20, 20]), 2, 2)
        >>> one = np.array([[0, 1]]), np.array([21]), np.array([1])  # both items, asked at second 21 for behavior 1
        >>> counts.before(*one, windows=[5]).tolist()  # ever, ever by that behavior, and in the last 5 seconds
        [[[2, 1, 1], [1, 1, 1]]]
    """

    times: np.ndarray
    starts: np.ndarray
    behavior_times: np.ndarray
    behavior_starts: np.ndarray
    num_behaviors: int

    @classmethod
    def of(
        cls, items: np.ndarray, behaviors: np.ndarray, times: np.ndarray, num_items: int, num_behaviors: int
    ) -> "ItemCounts":
        """Sort events by item, `[events]` each."""
        order, starts = grouped(items, times, num_items)
        by_behavior, behavior_starts = grouped(items * num_behaviors + behaviors, times, num_items * num_behaviors)
        return cls(times[order], starts, times[by_behavior], behavior_starts, num_behaviors)

    def before(self, items: np.ndarray, times: np.ndarray, behaviors: np.ndarray, windows: Sequence[int]) -> np.ndarray:
        """Return how often items were met strictly before moments.

        Args:
            items: Catalog rows, `[queries, candidates]`; what is counted at -1 means nothing.
            times: Seconds, `[queries]`.
            behaviors: The asked behaviors, `[queries]`.
            windows: Lengths in seconds; a window is the open interval `(time - window, time)`.

        Returns:
            Events ever, events of the asked behavior ever, and events in each window,
            `[queries, candidates, 2 + windows]` int64.
        """
        rows = items.clip(min=0)
        moments = np.broadcast_to(np.asarray(times)[:, None], rows.shape)
        starts, ends = self.starts[rows], self.starts[rows + 1]
        now = first_at_or_after(self.times, starts, ends, moments)
        since = [first_at_or_after(self.times, starts, now, moments - window + 1) for window in windows]
        asked = rows * self.num_behaviors + np.asarray(behaviors)[:, None]
        asked_starts = self.behavior_starts[asked]
        of_asked = first_at_or_after(self.behavior_times, asked_starts, self.behavior_starts[asked + 1], moments)
        return np.stack([now - starts, of_asked - asked_starts, *(now - start for start in since)], axis=2)
