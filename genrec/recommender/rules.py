"""Two rules that every model must beat: popularity and recency. Two more are in `trending` and `cooccurrence`.

Each is fitted on training histories and tuned on validation queries like any model; all are deterministic. Recency is
the rule-based baseline of GAMER (section 4.1.3: the user's own items, newest first, without repeats), with two settings
that make it stronger. Popularity follows the last days of the training part rather than the moment of the query.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from genrec.data.histories import Histories
from genrec.data.recent_events import SECONDS_PER_DAY
from genrec.recommender.rule_base import Arrays, RuleRecommender

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


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
        return self.grid if train.has_times else {**self.grid, "half_life_days": (None,)}


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
        return {"popularity": popularity_shares(train)}

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


def popularity_shares(train: Histories) -> np.ndarray:
    """Return each item's share of the most popular one's events, a little below 1 at most, `[items]`."""
    counts = np.bincount(train.items, minlength=len(train.item_ids))
    return counts / (counts.max() + 1)


def _age_weights(train: Histories, half_life_days: float | None) -> np.ndarray:
    """Return each event's weight, `[events]`: 1 for the last of the log, half of it one half-life earlier."""
    if half_life_days is None:
        return np.ones(len(train.items))
    if half_life_days <= 0:
        raise ValueError(f"`half_life_days` must be positive, got {half_life_days}. Pass None for no decay.")
    if not train.has_times:
        raise ValueError("`half_life_days` needs the time of each event, but the training histories have none.")
    age_days = (train.times.max() - train.times) / SECONDS_PER_DAY
    return np.exp2(-age_days / half_life_days)
