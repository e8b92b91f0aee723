"""A synthetic shop: a seeded log of any size, made in seconds, whose best possible recommendations are known.

The process stands with its formulas in `docs/market.md`. In short: a session serves a *need* (a subcategory) and leans
to a *brand*; a settled need calls up its successors (phone, then case), an open one tends to stay; visits go to items
for the need, to bestsellers or back to the user's own earlier items; every visit climbs the behavior ladder as far as
it gets. Interests and popularity drift, and some items are released late.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from genrec.data.catalog import Catalog
from genrec.data.histories import Histories, ItemIndex, offsets_from_counts
from genrec.data.market_process import Trace, World, simulate
from genrec.data.market_settings import MarketSettings
from genrec.data.market_titles import describe_items
from genrec.data.market_truth import next_item_probabilities
from genrec.data.market_world import SECONDS_PER_DAY, START_SECONDS, draw_shoppers, set_clock, stock_shelves

if TYPE_CHECKING:
    import pyarrow as pa

FIRST_USER_ID, FIRST_ITEM_ID = 1, 10_001


@dataclass(frozen=True)
class SyntheticMarket(MarketSettings):
    """A synthetic market: its log, its catalog and the truth about what comes next.

    Takes the settings of `MarketSettings`. Everything is made on first use and kept.

    Example:
        >>> market = SyntheticMarket(num_users=50, num_items=40, num_categories=2, seed=7)
        >>> log = market.histories()
        >>> len(log), log.ladder.names, len(market.item_ids)
        (50, ('view', 'cart', 'buy'), 40)
    """

    @property
    def item_ids(self) -> np.ndarray:
        """Item ids in row order, `[items]` int64. Rows are shuffled: an id tells nothing about its item."""
        return np.arange(FIRST_ITEM_ID, FIRST_ITEM_ID + self.num_items)

    @property
    def user_ids(self) -> np.ndarray:
        """User ids, `[users]` int64."""
        return np.arange(FIRST_USER_ID, FIRST_USER_ID + self.num_users)

    @property
    def release_times(self) -> np.ndarray:
        """Seconds at which each item becomes available, `[items]` int64; the log's begin for most."""
        return START_SECONDS + self._world.shelves.release_periods * self.drift_days * SECONDS_PER_DAY

    def log(self) -> "pa.Table":
        """Return all events as an Arrow table: `user_id, item_id, behavior, timestamp` (seconds), `session`."""
        import pyarrow as pa

        events = self._histories
        return pa.table(
            {
                "user_id": events.users[events.rows],
                "item_id": events.item_ids[events.items],
                "behavior": pa.array(np.array(events.ladder.names, dtype=object)[events.behaviors], type=pa.string()),
                "timestamp": events.times,
                "session": events.sessions,
            }
        )

    def catalog(self) -> Catalog:
        """Return the items with `title`, `category`, `subcategory`, `brand` and `released` (seconds)."""
        import pyarrow as pa

        shelves = self._world.shelves
        words = describe_items(shelves.needs, shelves.brands, self.seed)
        return Catalog(self.item_ids, pa.table({"item_id": self.item_ids, **words, "released": self.release_times}))

    def histories(self) -> Histories:
        """Return the whole log as `Histories` over all items, users in the order of their ids."""
        return self._histories

    def next_item_scores(self, histories: Histories, behavior: str) -> np.ndarray:
        """Return the true chance that each item gets `behavior` in the user's next session.

        Exact for a session that begins at the query time, given all that happened before it and the user's latent
        state (interests, brand shares, keenness, the last session's need and brand). That state is the market's own:
        the events in `histories` are not read, so a shortened history does not blur the truth, and nothing at or after
        the query time is read either. Ranking by these chances gives the highest expected number of hits at every
        cut-off.

        Args:
            histories: Whose `users` are asked about at which `query_times`; the columns follow `histories.item_ids`.
            behavior: A behavior of the ladder.

        Returns:
            `[users, items]` float64 in [0, 1]. Over the whole catalog a row sums to the expected number of different
            items that get the behavior in the session.

        Raises:
            ValueError: If query times are missing, or a user, an item or the behavior is not of this market.
        """
        if histories.query_times is None:
            raise ValueError(
                "`histories` must have `query_times`: the truth depends on the moment. Set them in seconds."
            )
        users = _rows(self.user_ids, histories.users, "user")
        items = _rows(self.item_ids, histories.item_ids, "item")
        index = self.behaviors.index(behavior)
        return next_item_probabilities(self._world, self._trace, users, histories.query_times, index)[:, items]

    @cached_property
    def _world(self) -> World:
        shelves = stock_shelves(self)
        return World(self, shelves, draw_shoppers(self, shelves), set_clock(self))

    @cached_property
    def _trace(self) -> Trace:
        return simulate(self._world)

    @cached_property
    def _histories(self) -> Histories:
        """Expand each visit to one event per ladder level that it reached."""
        clock, trace = self._world.clock, self._trace
        num_events = trace.visit_levels + 1
        visits = np.repeat(np.arange(len(num_events)), num_events)
        levels = np.arange(len(visits)) - np.repeat(offsets_from_counts(num_events)[:-1], num_events)
        session_of_visit = np.repeat(np.arange(len(clock.session_starts)), np.diff(clock.visit_offsets))
        sessions = session_of_visit[visits]
        users = np.repeat(np.arange(self.num_users), np.diff(clock.session_offsets))[sessions]
        return Histories(
            items=trace.visit_items[visits],
            behaviors=self._behaviors_at(levels),
            sessions=sessions - clock.session_offsets[users],
            times=clock.level_times[visits, levels],
            offsets=offsets_from_counts(np.bincount(users, minlength=self.num_users)),
            users=self.user_ids,
            item_ids=self.item_ids,
            ladder=self.behaviors,
        )

    def _behaviors_at(self, levels: np.ndarray) -> np.ndarray:
        """Choose one behavior of each event's ladder level, all tied ones with equal chance, `[events]`."""
        ladder_levels = np.array(self.behaviors.levels)
        first = np.searchsorted(ladder_levels, np.arange(ladder_levels[-1] + 1))
        ties = np.bincount(ladder_levels)
        return first[levels] + np.random.default_rng([self.seed, 5]).integers(ties[levels])


def _rows(known: np.ndarray, asked: np.ndarray, what: str) -> np.ndarray:
    rows = ItemIndex(known).rows(asked)
    if (rows < 0).any():
        stranger = asked.tolist()[int(np.argmax(rows < 0))]
        raise ValueError(
            f"The {what} {stranger!r} is not of this market. Ask with ids of its own log, made with the same settings."
        )
    return rows
