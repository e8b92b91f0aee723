"""Which items go together: a list of pairs in the order of time, so that a query sees what lay before it, no more.

A co-occurrence table of the whole log knows which items a user will combine next month, and one that is made anew now
and then is old when it is read: on a shop's log, tables a twelfth of the log apart lose a third of what live counts
find. Here nothing is summed beforehand. A query takes the newest pairs of the user's items that lie strictly before it.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from genrec.data.histories import Histories
from genrec.data.ranges import first_at_or_after, grouped

NO_ITEM = -1
TIE_SEED = 0
PRIOR_PAIRS = 5.0  # an item with few pairs does not know its neighbors as well as one with many


class Nearby(NamedTuple):
    """The items that go with those of a query: those among them, and then others, the strongest first each.

    Args:
        items: Catalog rows, -1 where there are no more `[queries, neighbors]` int64.
        together: How often and how close to the user's items they were met, before or after them
            `[queries, neighbors]` float64; 0 where there is no item, as in all that follows.
        after: The part of it in which they were met later than the user's item.
        num_pairs: How many pairs that is.
        first_rank: The place of the newest of the user's items that they go with, from 0.
        newest: The second of the newest pair.
    """

    items: np.ndarray
    together: np.ndarray
    after: np.ndarray
    num_pairs: np.ndarray
    first_rank: np.ndarray
    newest: np.ndarray


@dataclass(frozen=True, eq=False)
class NeighborIndex:
    """All pairs of different items that one user met within a few events, by item and in the order of time.

    A pair stands here twice, under either item. It came about at the time of its later event.

    Args:
        starts: Where each item's pairs begin, `[items + 1]` int64.
        others: The other item of each pair, `[pairs]` int32.
        times: When it came about, seconds, never falling within an item, `[pairs]` int64.
        steps: How many events later the other item was met, negative if before, `[pairs]` int8.

    Example:
        >>> from genrec.data.histories import as_histories
        >>> log = as_histories([[("a", "view", 10), ("b", "view", 20), ("c", "view", 30)]], ["a", "b", "c"], "view")
        >>> index = NeighborIndex.of(log)
        >>> found = index.nearby(np.array([[0], [0]]), np.array([30, 31]), num_neighbors=2)  # what goes with a?
        >>> found.items.tolist()  # before second 30 only b; c came two events later and counts half
        [[1, -1], [1, 2]]
        >>> (found.together[1, 0] / found.together[1, 1]).item()
        2.0
    """

    starts: np.ndarray
    others: np.ndarray
    times: np.ndarray
    steps: np.ndarray

    @classmethod
    def of(cls, histories: Histories, window: int = 10) -> "NeighborIndex":
        """Find all pairs. The index takes at most 26 bytes for each event and each step of the window.

        Args:
            histories: All users' histories, with times.
            window: How far apart two events of a user may stand, 1 to 127.

        Raises:
            ValueError: If the window is out of range, or there are events without times.
        """
        if not 1 <= window <= np.iinfo(np.int8).max:
            raise ValueError(f"`window` must be 1 to {np.iinfo(np.int8).max} events, got {window}.")
        if len(histories.items) and not histories.times.any():
            raise ValueError("Pairs in the order of time need the time of each event, but these histories have none.")
        firsts, seconds, steps = _pairs(histories, window)
        items, times = histories.items, histories.times[seconds]
        rows = np.concatenate([items[firsts], items[seconds]])
        order, starts = grouped(rows, np.tile(times, 2), len(histories.item_ids))
        others = np.concatenate([items[seconds], items[firsts]]).astype(np.int32)
        return cls(starts, others[order], np.tile(times, 2)[order], np.concatenate([steps, -steps])[order])

    @cached_property
    def _tie_places(self) -> np.ndarray:
        """A fixed random order of the catalog: its own is often one of popularity, and must not decide."""
        return np.random.default_rng(TIE_SEED).permutation(len(self.starts) - 1)

    def nearby(self, items: np.ndarray, times: np.ndarray, num_neighbors: int, num_pairs: int = 32) -> Nearby:
        """Return what goes with the items of queries; these items themselves come first, if they go together.

        A pair `d` events apart counts `1 / d`, over `1 + r` for the user's r-th newest item (from 0), and over the
        square root of how many of this item's pairs were looked at, plus 5.

        Args:
            items: Each query's items as catalog rows, newest first, -1 for none `[queries, recent]`.
            times: When each is asked, seconds; only pairs strictly before are seen `[queries]`.
            num_neighbors: How many to return; of equal ones, which is decided by a fixed random order of the catalog.
            num_pairs: Pairs looked at for each of the user's items, the newest.
        """
        pairs, is_pair, norms = self._newest_pairs(items, times, num_pairs)
        queries, ranks, _ = np.nonzero(is_pair)
        pairs = pairs[is_pair]
        others, steps = self.others[pairs].astype(np.int64), self.steps[pairs]
        weights = 1 / (np.abs(steps) * (1.0 + ranks) * norms[queries, ranks])
        num_items = len(self.starts) - 1
        keys = queries * num_items + self._tie_places[others]
        order = np.argsort(keys, kind="stable")
        begins = np.flatnonzero(np.diff(keys[order], prepend=-1))
        sums = _Sums(order, begins)
        of_query, of_item = queries[order][begins], others[order][begins]
        is_own = (items[of_query] == of_item[:, None]).any(axis=1)
        return _strongest(
            of_query,
            is_own,
            Nearby(
                items=of_item,
                together=sums.of(weights, np.add),
                after=sums.of(np.where(steps > 0, weights, 0), np.add),
                num_pairs=sums.of(np.ones(len(order), dtype=np.int64), np.add),
                first_rank=sums.of(ranks, np.minimum),
                newest=sums.of(self.times[pairs], np.maximum),
            ),
            (len(items), num_neighbors),
        )

    def _newest_pairs(
        self, items: np.ndarray, times: np.ndarray, num_pairs: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return pairs and which of them there are `[queries, recent, pairs]`, and what divides their weights."""
        rows = items.clip(min=0)
        starts = self.starts[rows]
        moments = np.broadcast_to(np.asarray(times)[:, None], rows.shape)
        ends = first_at_or_after(self.times, starts, self.starts[rows + 1], moments)
        pairs = ends[..., None] - 1 - np.arange(num_pairs)
        is_pair = (pairs >= starts[..., None]) & (items >= 0)[..., None]
        return pairs, is_pair, np.sqrt(is_pair.sum(axis=2) + PRIOR_PAIRS)


@dataclass(frozen=True)
class _Sums:
    """Sums over runs of equal keys: `order` sorts the keys, `begins` is where each run begins."""

    order: np.ndarray
    begins: np.ndarray

    def of(self, values: np.ndarray, reduction: np.ufunc) -> np.ndarray:
        if len(self.begins) == 0:
            return values[:0]
        reduced: np.ndarray = reduction.reduceat(values[self.order], self.begins)
        return reduced


def _strongest(queries: np.ndarray, is_own: np.ndarray, found: Nearby, shape: tuple[int, int]) -> Nearby:
    """Return the strongest of each query's neighbors in rows, its own items first; `queries` rise."""
    best = np.lexsort((-found.together, ~is_own, queries))
    places = np.arange(len(queries)) - np.searchsorted(queries, queries[best])
    kept, places = best[places < shape[1]], places[places < shape[1]]

    def rows_of(values: np.ndarray, filler: int) -> np.ndarray:
        rows = np.full(shape, filler, dtype=values.dtype)
        rows[queries[kept], places] = values[kept]
        return rows

    return Nearby(rows_of(found.items, NO_ITEM), *(rows_of(values, 0) for values in found[1:]))


def _pairs(histories: Histories, window: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the earlier and the later event of each pair, and how many events lie between them, plus one."""
    rows, items, firsts, steps = histories.rows, histories.items, [], []
    for step in range(1, window + 1):
        is_pair = (rows[:-step] == rows[step:]) & (items[:-step] != items[step:])
        firsts.append(np.flatnonzero(is_pair))
        steps.append(np.full(len(firsts[-1]), step, dtype=np.int8))
    first, distance = np.concatenate(firsts), np.concatenate(steps)
    return first, first + distance, distance
