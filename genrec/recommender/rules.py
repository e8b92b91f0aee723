"""Three rules that every model must beat: popularity, recency and co-occurrence.

Each is fitted on training histories and tuned on validation queries like any model; all are deterministic. Recency is
the rule-based baseline of GAMER (section 4.1.3: the user's own items, newest first, without repeats), with two settings
that make it stronger. Popularity follows the last days of the training part rather than the moment of the query.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from genrec.data.histories import Histories
from genrec.recommender.rule_base import Arrays, RuleRecommender

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scipy.sparse import csr_array

SECONDS_PER_DAY = 24 * 60 * 60
FALLBACK_WEIGHT = 1e-6


@dataclass(eq=False)
class PopularityRecommender(RuleRecommender):
    """Recommends to everyone the items with the most training events.

    Args:
        behavior_specific: Whether to count only events of the asked behavior instead of all.
        half_life_days: An event this many days before the last training event counts half; None counts all alike.

    Example:
        >>> from genrec.data.histories import as_histories
        >>> train = as_histories([[("a", "view"), ("b", "view")], [("b", "buy")]], ["a", "b", "c"], "view,buy")
        >>> PopularityRecommender().fit(train).recommend([[]], k=2)[0]
        Recommendation(item_ids=['b', 'a'], scores=[2.0, 1.0])
    """

    behavior_specific: bool = False
    half_life_days: float | None = None

    grid: ClassVar["Mapping[str, Sequence[Any]]"] = {
        "half_life_days": (None, 90.0, 30.0, 14.0, 7.0, 3.0, 1.0),
        "behavior_specific": (False, True),
    }
    scoring_settings: ClassVar[tuple[str, ...]] = ("behavior_specific",)

    def _count(self, train: Histories) -> Arrays:
        weights = _age_weights(train, self.half_life_days)
        counts = np.zeros((len(train.ladder.names), len(train.item_ids)))
        np.add.at(counts, (train.behaviors, train.items), weights)
        return {"counts": counts}

    def _score(self, histories: Histories, behavior: str) -> np.ndarray:
        counts = self._arrays["counts"]
        scores = counts[histories.ladder.index(behavior)] if self.behavior_specific else counts.sum(axis=0)
        return np.broadcast_to(scores, (len(histories), counts.shape[1]))

    def _usable_grid(self, train: Histories) -> "Mapping[str, Sequence[Any]]":
        return self.grid if _has_times(train) else {**self.grid, "half_life_days": (None,)}


@dataclass(eq=False)
class RecencyRecommender(RuleRecommender):
    """Recommends the user's own items, newest first, then popular ones.

    Args:
        skip_done: Whether items that the user already gave the asked behavior come last instead: bought is bought.
        order: `"recent"`: by the latest event of any behavior. `"level"`: first the items with the strongest
            behavior weaker than the asked one (in the cart, then viewed), each by its latest such event.

    Example:
        >>> from genrec.data.histories import as_histories
        >>> train = as_histories([[("c", "view")]], ["a", "b", "c"], "view,cart,buy")
        >>> history = [("a", "cart"), ("b", "view"), ("b", "buy")]
        >>> RecencyRecommender().fit(train).recommend([history], k=3)[0].item_ids
        ['b', 'a', 'c']
        >>> RecencyRecommender(skip_done=True).fit(train).recommend([history], k=3)[0].item_ids
        ['a', 'c', 'b']
    """

    skip_done: bool = False
    order: str = "recent"

    grid: ClassVar["Mapping[str, Sequence[Any]]"] = {"skip_done": (False, True), "order": ("recent", "level")}
    scoring_settings: ClassVar[tuple[str, ...]] = ("skip_done", "order")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in ("recent", "level"):
            raise ValueError(f"`order` must be 'recent' or 'level', got {self.order!r}.")

    def _count(self, train: Histories) -> Arrays:
        return {"popularity": _popularity(train)}

    def _score(self, histories: Histories, behavior: str) -> np.ndarray:
        rows, items = histories.rows, histories.items
        scores = np.tile(self._arrays["popularity"], (len(histories), 1))
        np.maximum.at(scores, (rows, items), self._priority(histories, behavior))
        if self.skip_done:
            is_done = histories.behaviors == histories.ladder.index(behavior)
            scores[rows[is_done], items[is_done]] -= 2 * scores.max()
        return scores

    def _priority(self, histories: Histories, behavior: str) -> np.ndarray:
        """Return at least 1 for each event, `[events]`: above every popularity."""
        position = np.arange(len(histories.items)) - histories.offsets[:-1][histories.rows]
        if self.order == "recent":
            return position + 1.0
        levels = np.array(histories.ladder.levels)
        level = levels[histories.behaviors]
        rank = np.where(level < levels[histories.ladder.index(behavior)], level + 1, 0)
        return rank * (position.max(initial=0) + 1) + position + 1.0


@dataclass(eq=False)
class CooccurrenceRecommender(RuleRecommender):
    """Recommends the items that other users had near the user's latest items, and those items themselves.

    An item that follows another one of the same user `d` events later, `d <= window`, counts `1 / d` as its neighbor.
    The counts of an item's neighbors are divided by their numbers of events to the power `damping`, then scaled to sum
    to 1. A user's items weigh `recency_decay` to the power of how many events ago they were, and bring in their
    neighbors with that weight and themselves with `repeat_weight` times it. What no neighbor reaches is ordered by
    popularity.

    Args:
        window: How far apart two events of a user may stand.
        is_directed: Whether only later items are neighbors; else the earlier ones are too.
        damping: 0 favors popular neighbors, 1 rare ones.
        recency_decay: Weight of an event relative to the one after it, above 0 and at most 1.
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
    repeat_weight: float = 0.25

    grid: ClassVar["Mapping[str, Sequence[Any]]"] = {
        "repeat_weight": (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0),
        "recency_decay": (0.4, 0.6, 0.8, 0.95),
        "window": (3, 10, 30),
        "is_directed": (True, False),
        "damping": (0.0, 0.25, 0.5),
    }
    scoring_settings: ClassVar[tuple[str, ...]] = ("recency_decay", "repeat_weight")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window < 1:
            raise ValueError(f"`window`, a number of events, must be at least 1, got {self.window}.")
        if not 0 < self.recency_decay <= 1:
            raise ValueError(f"`recency_decay` must lie above 0 and be at most 1, got {self.recency_decay}.")
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
            "popularity": _popularity(train),
        }

    def _score(self, histories: Histories, behavior: str) -> np.ndarray:
        from scipy.sparse import csr_array

        num_items = len(histories.item_ids)
        events_ago = histories.offsets[1:][histories.rows] - np.arange(len(histories.items)) - 1
        weights = self.recency_decay ** events_ago.astype(np.float64)
        profile = csr_array((weights, histories.items, histories.offsets), shape=(len(histories), num_items))
        parts = (self._arrays["weights"], self._arrays["columns"], self._arrays["offsets"])
        neighbors = csr_array(parts, shape=(num_items, num_items))
        scores = (profile @ neighbors + self.repeat_weight * profile).toarray()
        return scores + FALLBACK_WEIGHT * self._arrays["popularity"]


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


def _popularity(train: Histories) -> np.ndarray:
    """Return each item's share of the most popular one's events, a little below 1 at most, `[items]`."""
    counts = np.bincount(train.items, minlength=len(train.item_ids))
    return counts / (counts.max() + 1)


def _has_times(histories: Histories) -> bool:
    return bool(histories.times.any())


def _age_weights(train: Histories, half_life_days: float | None) -> np.ndarray:
    """Return each event's weight, `[events]`: 1 for the last of the log, half of it one half-life earlier."""
    if half_life_days is None:
        return np.ones(len(train.items))
    if half_life_days <= 0:
        raise ValueError(f"`half_life_days` must be positive, got {half_life_days}. Pass None for no decay.")
    if not _has_times(train):
        raise ValueError("`half_life_days` needs the time of each event, but the training histories have none.")
    age_days = (train.times.max() - train.times) / SECONDS_PER_DAY
    return np.exp2(-age_days / half_life_days)
