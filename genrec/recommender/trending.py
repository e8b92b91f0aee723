"""What all users do right now: the rule that no model without time beats on a news feed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from genrec.data.histories import Histories
from genrec.data.recent_events import SECONDS_PER_DAY, RecentEvents
from genrec.recommender.reading import read_histories
from genrec.recommender.rule_base import Arrays, RuleRecommender


@dataclass(eq=False)
class TrendingRecommender(RuleRecommender):
    """Recommends to everyone the items with the most events in the time just before the query.

    Only events strictly before the query count, from whichever user. Items without an event in the window follow in the
    order of all their earlier events, so that a query after a long silence gets the popular ones, and a query before
    the first event no particular order. Histories without a query time are asked about one second after the last event.

    Args:
        window_days: Length of the window; an event exactly this old is outside.
        behavior_specific: Whether to count only events of the asked behavior instead of all.

    Example:
        >>> from genrec.data.histories import as_histories
        >>> hour, day = 3600, 86400
        >>> log = [[("a", "view", 0), ("a", "view", hour)], [("b", "view", 9 * day)]]
        >>> rule = TrendingRecommender(window_days=1).fit(as_histories(log, ["a", "b", "c"], "view"))
        >>> [rule.recommend([[]], k=1, at=at)[0].item_ids for at in (2 * hour, 9 * day + hour, 20 * day)]
        [['a'], ['b'], ['a']]
        >>> rule.add_events([[("c", "view", 20 * day - hour)]]).recommend([[]], k=1, at=20 * day)[0].item_ids
        ['c']
    """

    window_days: float = 1.0
    behavior_specific: bool = False

    grid: ClassVar[Mapping[str, Sequence[Any]]] = {
        "window_days": (0.25, 1.0, 3.0, 7.0, 14.0, 30.0),
        "behavior_specific": (False, True),
    }
    scoring_settings: ClassVar[tuple[str, ...]] = ("window_days", "behavior_specific")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window_days <= 0:
            raise ValueError(f"`window_days` must be positive, got {self.window_days}.")

    def fit(self, train: Histories, events: RecentEvents | None = None) -> Self:
        """Keep the events to count in, and return the recommender itself.

        Args:
            train: The training histories.
            events: All users' events, of which those strictly before a query count, whatever the split; None takes the
                training histories' own.

        Raises:
            ValueError: If there is no event, the events have no times, or their catalog or ladder is another.
        """
        if events is not None:
            sizes = (len(train.item_ids), len(train.ladder.names))
            if (events.num_items, events.num_behaviors) != sizes:
                raise ValueError(
                    f"`events` know {events.num_items} items and {events.num_behaviors} behaviors, the training "
                    f"histories {sizes[0]} and {sizes[1]}. Take both from one prepared dataset."
                )
        super().fit(train)
        return self if events is None else self._set_arrays(_arrays(events), train.item_ids, train.ladder)

    def add_events(self, histories: Any) -> Self:
        """Count what happened since, at once and without another fit, and return the recommender itself.

        Args:
            histories: Histories of `(item, behavior, time)` in any form that `as_histories` reads, in any number of
                rows: who did it does not matter. Items that the catalog lacks are left out.

        Raises:
            ValueError: If the recommender has not been fitted, or the events have no times, or none in seconds.
        """
        scoring = self._fitted()
        read = read_histories(histories, scoring.item_ids, scoring.ladder)
        if len(read.items) and not read.has_times:
            raise ValueError("Events must say when they happened. Give `(item, behavior, time)`.")
        events = self._events().with_events(read.items, read.behaviors, read.times)
        return self._set_arrays(_arrays(events), scoring.item_ids, scoring.ladder)

    def _count(self, train: Histories) -> Arrays:
        return _arrays(RecentEvents.of(train))

    def _score(self, histories: Histories, behavior: str) -> np.ndarray:
        events = self._events()
        times = histories.query_times
        if times is None:
            times = np.full(len(histories), events.times.max(initial=0) + 1)
        if self.behavior_specific:
            events = events.of_behavior(histories.ladder.index(behavior))
        distinct, rows = np.unique(times, return_inverse=True)
        recent = events.counts(distinct, round(self.window_days * SECONDS_PER_DAY))
        earlier = events.counts(distinct)
        return (recent + earlier / (earlier.max(axis=1, keepdims=True) + 1))[rows]

    def _events(self) -> RecentEvents:
        scoring, arrays = self._fitted(), self._arrays
        sizes = (len(scoring.item_ids), len(scoring.ladder.names))
        return RecentEvents(arrays["items"], arrays["behaviors"], arrays["times"], *sizes)


def _arrays(events: RecentEvents) -> Arrays:
    return {"items": events.items, "behaviors": events.behaviors, "times": events.times}
