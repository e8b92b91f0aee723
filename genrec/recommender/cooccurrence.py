"""Item-item co-occurrence with decay and a repeat term: the strongest classic rule for what a user does next."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from genrec.data.histories import Histories
from genrec.data.recent_events import SECONDS_PER_DAY
from genrec.recommender.rule_base import Arrays, RuleRecommender
from genrec.recommender.rules import popularity_shares

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scipy.sparse import csr_array

FALLBACK_WEIGHT = 1e-6


@dataclass(eq=False)
class CooccurrenceRecommender(RuleRecommender):
    """Recommends the items that other users had near the user's latest items, and those items themselves.

    An item that follows another one of the same user `d` events later, `d <= window`, counts `1 / d` as its neighbor.
    The counts of an item's neighbors are divided by their numbers of events to the power `damping`, then scaled to sum
    to 1. A user's items weigh `recency_decay` to the power of how many events ago they were, times one half for every
    `half_life_days` that they are older than the newest, and bring in their neighbors with that weight and themselves
    with `repeat_weight` times it. What no neighbor reaches is ordered by popularity.

    Args:
        window: How far apart two events of a user may stand.
        is_directed: Whether only later items are neighbors; else the earlier ones are too.
        damping: 0 favors popular neighbors, 1 rare ones.
        recency_decay: Weight of an event relative to the one after it, above 0 and at most 1.
        half_life_days: An event this much older than the user's newest weighs half, where histories have times; None
            looks at their order only. (Ages at the time of the query would order items alike: from one moment to the
            next, all weights of a user shrink by the same factor.)
        repeat_weight: Weight of the user's own items; 0 leaves only what their neighbors say.

    Example:
        >>> from genrec.data.histories import as_histories
        >>> train = as_histories([[("a", "view"), ("b", "view")], [("c", "view")]], ["a", "b", "c"], "view")
        >>> CooccurrenceRecommender(repeat_weight=0.5).fit(train).recommend([[("a", "view")]], k=2)[0].item_ids
        ['b', 'a']
    """

    window: int = 10
    is_directed: bool = True
    damping: float = 0.0
    recency_decay: float = 0.6
    half_life_days: float | None = None
    repeat_weight: float = 0.25

    grid: ClassVar["Mapping[str, Sequence[Any]]"] = {
        "repeat_weight": (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0),
        "recency_decay": (0.4, 0.6, 0.8, 0.95, 1.0),
        "half_life_days": (None, 30.0, 7.0, 1.0, 0.25),
        "window": (3, 10, 30),
        "is_directed": (True, False),
        "damping": (0.0, 0.25, 0.5),
    }
    scoring_settings: ClassVar[tuple[str, ...]] = ("recency_decay", "half_life_days", "repeat_weight")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window < 1:
            raise ValueError(f"`window`, a number of events, must be at least 1, got {self.window}.")
        if not 0 < self.recency_decay <= 1:
            raise ValueError(f"`recency_decay` must lie above 0 and be at most 1, got {self.recency_decay}.")
        if self.half_life_days is not None and self.half_life_days <= 0:
            raise ValueError(f"`half_life_days` must be positive, got {self.half_life_days}. Pass None for no decay.")
        if self.repeat_weight < 0:
            raise ValueError(f"`repeat_weight` must not be negative, got {self.repeat_weight}.")

    def _count(self, train: Histories) -> Arrays:
        neighbors = _neighbor_counts(train, self.window, self.is_directed)
        events = np.maximum(np.bincount(train.items, minlength=len(train.item_ids)), 1)
        neighbors.data = neighbors.data / events[neighbors.indices] ** self.damping
        totals = np.asarray(neighbors.sum(axis=1))
        neighbors.data = neighbors.data / np.repeat(totals, np.diff(neighbors.indptr))
        return {
            "weights": neighbors.data,
            "columns": neighbors.indices,
            "offsets": neighbors.indptr,
            "popularity": popularity_shares(train),
        }

    def _score(self, histories: Histories, behavior: str) -> np.ndarray:
        from scipy.sparse import csr_array

        num_items = len(histories.item_ids)
        profile = csr_array(
            (self._weights(histories), histories.items, histories.offsets), shape=(len(histories), num_items)
        )
        parts = (self._arrays["weights"], self._arrays["columns"], self._arrays["offsets"])
        neighbors = csr_array(parts, shape=(num_items, num_items))
        scores = (profile @ neighbors + self.repeat_weight * profile).toarray()
        return scores + FALLBACK_WEIGHT * self._arrays["popularity"]

    def _weights(self, histories: Histories) -> np.ndarray:
        """Return what each event of the histories weighs, `[events]`; the newest of a user weighs 1."""
        last = histories.offsets[1:][histories.rows] - 1
        weights = self.recency_decay ** (last - np.arange(len(last))).astype(np.float64)
        if self.half_life_days is None:
            return weights
        age_days = (histories.times[last] - histories.times) / SECONDS_PER_DAY
        return weights * np.exp2(-age_days / self.half_life_days)

    def _usable_grid(self, train: Histories) -> "Mapping[str, Sequence[Any]]":
        return self.grid if train.has_times else {**self.grid, "half_life_days": (None,)}


def _neighbor_counts(train: Histories, window: int, is_directed: bool) -> "csr_array":
    """Return how often and closely the column's item follows the row's, `[items, items]`; none is its own neighbor."""
    from scipy.sparse import csr_array

    num_items = len(train.item_ids)
    counts, rows = csr_array((num_items, num_items)), train.rows
    for distance in range(1, window + 1):
        first, second = train.items[:-distance], train.items[distance:]
        is_pair = (rows[:-distance] == rows[distance:]) & (first != second)
        weights = np.full(is_pair.sum(), 1 / distance)
        counts = counts + csr_array((weights, (first[is_pair], second[is_pair])), shape=counts.shape)
    counts = counts if is_directed else (counts + counts.T).tocsr()
    counts.sort_indices()
    return counts
