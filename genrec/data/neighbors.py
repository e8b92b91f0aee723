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
from genrec.data.ranges import first_at_or_after, grouped, stable_order

NO_ITEM = -1
TIE_SEED = 0
PRIOR_PAIRS = 5.0  # an item with few pairs does not know its neighbors as well as one with many
SECONDS_PER_DAY = 86_400.0
SAME_SESSION, LATER_SESSION, EARLIER_SESSION = 0, 1, 2
TOGETHER = np.array([1.0, 0.0, 0.3])  # what a pair of each kind counts; the last two are one meeting, seen from either
AFTER = np.array([0.0, 1.0, 0.0])


class Nearby(NamedTuple):
    """The items that go with those of a query: those among them, then others, strongest and latest in turn.

    Args:
        items: Catalog rows, -1 where there are no more `[queries, neighbors]` int64.
        together: How often they were met in one session with the user's items, and a little for a session before
            `[queries, neighbors]` float64; 0 where there is no item, as in all that follows.
        after: How often they were met in the session after one of the user's items.
        lately: The sum of both, a pair of `d` days ago counted `1 / (1 + d)` of it.
        num_pairs: How many pairs that is.
        first_rank: The place of the newest of the user's items that they go with, from 0.
        newest: The second of the newest pair.
    """

    items: np.ndarray
    together: np.ndarray
    after: np.ndarray
    lately: np.ndarray
    num_pairs: np.ndarray
    first_rank: np.ndarray
    newest: np.ndarray


@dataclass(frozen=True, eq=False)
class NeighborIndex:
    """All pairs of different items that one user met in one session or shortly one after the other, by item and time.

    A pair stands here twice, under either item. It came about at the time of its later event. Two items of one session
    are one pair, however often they were met there.

    Args:
        starts: Where each item's pairs begin, `[items + 1]` int64.
        others: The other item of each pair, `[pairs]` int32.
        times: When it came about, seconds, never falling within an item, `[pairs]` int64.
        kinds: Where the other item was met: in the same session, a later one or an earlier one, `[pairs]` int8.

    Example:
        >>> from genrec.data.histories import as_histories
        >>> log = as_histories([[("a", "view", 10), ("b", "view", 20), ("c", "view", 9000)]], ["a", "b", "c"], "view")
        >>> index = NeighborIndex.of(log)
        >>> found = index.nearby(np.array([[0], [0]]), np.array([30, 9001]), num_neighbors=2)  # what goes with a?
        >>> found.items.tolist()  # before second 30 only b; c came in the next session
        [[1, -1], [1, 2]]
        >>> (found.together[1] > 0).tolist(), (found.after[1] > 0).tolist()
        ([True, False], [False, True])
    """

    starts: np.ndarray
    others: np.ndarray
    times: np.ndarray
    kinds: np.ndarray

    @classmethod
    def of(cls, histories: Histories, session_window: int = 20, back_window: int = 12) -> "NeighborIndex":
        """Find all pairs. The index takes 13 bytes for each, 12 more once it is asked; finding them, a few times that.

        Args:
            histories: All users' histories, with times.
            session_window: How many of a session's different items are looked at: an item makes a pair with each of
                the `session_window - 1` before it, and with the items before the session if it is one of the first
                `session_window`. At least 1.
            back_window: How many events before a session count as before it, each item of each session once. At least
                0.

        Raises:
            ValueError: If a window is too small, or there are events without times.
        """
        for name, value, least in (("session_window", session_window, 1), ("back_window", back_window, 0)):
            if value < least:
                raise ValueError(f"`{name}` must be at least {least}, got {value}.")
        if len(histories.items) and not histories.has_times:
            raise ValueError("Pairs in the order of time need the time of each event, but these histories have none.")
        met = _FirstMeetings.of(histories)
        found = [*_pairs_in_sessions(met, session_window), *_pairs_across(met, session_window, back_window)]
        firsts, seconds, kinds = (np.concatenate(part) for part in zip(*found, strict=True))
        items, times = met.items, met.times[np.maximum(firsts, seconds)]
        order, starts = grouped(items[firsts], times, len(histories.item_ids))
        return cls(starts, items[seconds][order].astype(np.int32), times[order], kinds[order])

    @cached_property
    def _tie_places(self) -> np.ndarray:
        """A fixed random order of the catalog: its own is often one of popularity, and must not decide."""
        return np.random.default_rng(TIE_SEED).permutation(len(self.starts) - 1)

    def nearby(self, items: np.ndarray, times: np.ndarray, num_neighbors: int, num_pairs: int = 1024) -> Nearby:
        """Return what goes with the items of queries; these items themselves come first, if they go together.

        For `together` a pair of one session counts 1 and one of an earlier session .3, for `after` one of a later
        session counts 1: over `1 + r` for the user's r-th newest item (from 0), and over the square root of what all of
        this item's pairs count, plus 5.

        Args:
            items: Each query's items as catalog rows, newest first, -1 for none `[queries, recent]`.
            times: When each is asked, seconds; only pairs strictly before are seen `[queries]`.
            num_neighbors: How many to return, in turn those with the most `together` and `after` and those with the
                most `lately`: a shop's neighbors are those of all times, a news feed's those of today. Of equal ones,
                which is decided by a fixed random order of the catalog.
            num_pairs: Pairs looked at for each of the user's items, the newest.
        """
        ends, counts = self._newest_pairs(items, times, num_pairs)
        owners = np.repeat(np.arange(items.size), counts)
        pairs = (ends - 1 + np.cumsum(counts) - counts)[owners] - np.arange(len(owners))  # of each item, newest first
        queries, num_items = owners // items.shape[1], len(self.starts) - 1
        others, kinds = self.others[pairs], self.kinds[pairs]
        strengths = self._strengths(ends, counts, items.shape[1])[owners, kinds]
        order = stable_order(queries * num_items + self._tie_places[others])
        queries, others, owners = queries[order], others[order], owners[order]
        strengths, kinds, moments = strengths[order], kinds[order], self.times[pairs[order]]
        is_new = np.ones(len(order), dtype=bool)
        is_new[1:] = (queries[1:] != queries[:-1]) | (others[1:] != others[:-1])
        begins = np.flatnonzero(is_new)
        of_query, of_item = queries[begins], others[begins].astype(np.int64)
        return _strongest(
            of_query,
            (items[of_query] == of_item[:, None]).any(axis=1),
            Nearby(
                items=of_item,
                together=_reduced(np.add, np.where(kinds == LATER_SESSION, 0, strengths), begins),
                after=_reduced(np.add, np.where(kinds == LATER_SESSION, strengths, 0), begins),
                lately=_reduced(np.add, strengths / (1 + (times[queries] - moments) / SECONDS_PER_DAY), begins),
                num_pairs=np.diff(np.append(begins, len(order))),
                first_rank=owners[begins] % items.shape[1],  # equal keys stay in order, the newest item's pairs first
                newest=_reduced(np.maximum, moments, begins),
            ),
            (len(items), num_neighbors),
        )

    def with_rows(self, new_rows: np.ndarray, num_items: int) -> "NeighborIndex":
        """Return the pairs under other catalog rows, without those of an item that has none any more.

        Args:
            new_rows: The new row of each item, -1 for none `[items]`.
            num_items: How many rows the new catalog has.
        """
        owners, others = np.repeat(new_rows, np.diff(self.starts)), new_rows[self.others]
        is_kept = (owners != NO_ITEM) & (others != NO_ITEM)
        others, times, kinds = others[is_kept].astype(np.int32), self.times[is_kept], self.kinds[is_kept]
        order, starts = grouped(owners[is_kept], times, num_items)
        return NeighborIndex(starts, others[order], times[order], kinds[order])

    def _newest_pairs(self, items: np.ndarray, times: np.ndarray, num_pairs: int) -> tuple[np.ndarray, np.ndarray]:
        """Return where the pairs of each item before its query end, and how many are looked at `[queries * recent]`."""
        rows = items.clip(min=0)
        starts = self.starts[rows]
        moments = np.broadcast_to(np.asarray(times)[:, None], rows.shape)
        ends = first_at_or_after(self.times, starts, self.starts[rows + 1], moments)
        return ends.ravel(), np.where(items >= 0, np.minimum(ends - starts, num_pairs), 0).ravel()

    def _strengths(self, ends: np.ndarray, counts: np.ndarray, num_recent: int) -> np.ndarray:
        """Return what one pair of each kind counts for each of the users' items `[queries * recent, kinds]`."""
        of_kinds = self._kinds_before[ends] - self._kinds_before[ends - counts]
        together, after = (1 / np.sqrt(of_kinds @ counted + PRIOR_PAIRS) for counted in (TOGETHER, AFTER))
        strengths: np.ndarray = together[:, None] * TOGETHER + after[:, None] * AFTER
        return strengths / (1.0 + np.arange(len(ends)) % num_recent)[:, None]

    @cached_property
    def _kinds_before(self) -> np.ndarray:
        """How many pairs of each kind stand before each place, `[pairs + 1, kinds]` int32."""
        found = np.zeros((len(self.kinds) + 1, len(TOGETHER)), dtype=np.int32)
        for kind in range(len(TOGETHER)):
            np.cumsum(self.kinds == kind, out=found[1:, kind])
        return found


def _reduced(reduction: np.ufunc, values: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """Return one value for each run of values that begins at `begins`."""
    reduced: np.ndarray = reduction.reduceat(values, begins) if len(begins) else values[:0]
    return reduced


def _strongest(queries: np.ndarray, is_own: np.ndarray, found: Nearby, shape: tuple[int, int]) -> Nearby:
    """Return each query's neighbors in rows: its own items first, then in turn the strongest and the latest.

    Args:
        queries: The query of each neighbor, rising.
        is_own: Whether it is one of the user's items.
        found: The neighbors, flat.
        shape: Queries, and neighbors per query.
    """
    # Who is not among the first in either order cannot be kept; sorting the hundreds of others took most of the time.
    is_contender = is_own.copy()
    for values in (found.together + found.after, found.lately):
        is_contender |= _is_among_highest(values, queries, shape)
    queries, is_own = queries[is_contender], is_own[is_contender]
    found = Nearby(*(part[is_contender] for part in found))
    strengths, latest = (
        _ranks(np.lexsort((-values, ~is_own, queries)), queries)
        for values in (found.together + found.after, found.lately)
    )
    best = np.lexsort((strengths, np.minimum(strengths, latest), queries))
    places = np.arange(len(queries)) - np.searchsorted(queries, queries[best])
    kept, places = best[places < shape[1]], places[places < shape[1]]

    def rows_of(values: np.ndarray, filler: int) -> np.ndarray:
        rows = np.full(shape, filler, dtype=values.dtype)
        rows[queries[kept], places] = values[kept]
        return rows

    return Nearby(rows_of(found.items, NO_ITEM), *(rows_of(values, 0) for values in found[1:]))


def _is_among_highest(values: np.ndarray, queries: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return which values are among the highest `shape[1]` of their query, ties with the last of them included."""
    bounds = np.searchsorted(queries, np.arange(shape[0] + 1))
    thresholds = np.full(shape[0], -np.inf)
    for query in np.flatnonzero(np.diff(bounds) > shape[1]).tolist():
        of_query = values[bounds[query] : bounds[query + 1]]
        thresholds[query] = np.partition(of_query, -shape[1])[-shape[1]]
    is_high: np.ndarray = values >= thresholds[queries]
    return is_high


def _ranks(order: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return the place of each neighbor among those of its query, from 0; `order` sorts by query first."""
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order)) - np.searchsorted(queries, queries)  # in order, queries rise as before
    return ranks


class _FirstMeetings(NamedTuple):
    """The events in which a user meets an item for the first time in a session, in the order of the log.

    Args:
        items: Catalog rows `[meetings]`.
        times: Seconds `[meetings]`.
        starts: Where each one's session begins `[meetings]`.
        user_starts: Where each one's user begins `[meetings]`.
    """

    items: np.ndarray
    times: np.ndarray
    starts: np.ndarray
    user_starts: np.ndarray

    @classmethod
    def of(cls, histories: Histories) -> "_FirstMeetings":
        rows, sessions, items = histories.rows, histories.sessions, histories.items
        order = np.lexsort((items, sessions, rows))  # stable: the first of equal ones is the earliest
        is_first = np.ones(len(items), dtype=bool)
        is_first[order[1:]] = _differs(rows[order], sessions[order], items[order])
        rows, sessions = rows[is_first], sessions[is_first]
        starts, user_starts = _run_starts(rows, sessions), _run_starts(rows)
        return cls(items[is_first], histories.times[is_first], starts, user_starts)


def _differs(*columns: np.ndarray) -> np.ndarray:
    """Return where rows differ from the one before, from the second on."""
    differs: np.ndarray = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return differs


def _run_starts(*columns: np.ndarray) -> np.ndarray:
    """Return where the run of equal rows that each row belongs to begins."""
    places = np.arange(len(columns[0]))
    is_start = np.ones(len(places), dtype=bool)
    is_start[1:] = _differs(*columns)
    starts: np.ndarray = np.maximum.accumulate(np.where(is_start, places, 0))
    return starts


Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]


def _pairs_in_sessions(met: _FirstMeetings, window: int) -> list[Pairs]:
    """Return the pairs of one session, in both directions: places of the one and the other, and their kind."""
    found = []
    for distance in range(1, window):
        later = np.flatnonzero(np.arange(len(met.items)) - met.starts >= distance)
        found += _both_ways(later - distance, later, SAME_SESSION, SAME_SESSION)
    return found


def _pairs_across(met: _FirstMeetings, session_window: int, back_window: int) -> list[Pairs]:
    """Return the pairs of an item and one met before its session, in both directions."""
    places = np.arange(len(met.items))
    is_near_start = places - met.starts < session_window
    found = _both_ways(places[:0], places[:0], LATER_SESSION, EARLIER_SESSION)
    for distance in range(1, back_window + 1):
        earlier = met.starts - distance
        is_pair = is_near_start & (earlier >= met.user_starts)
        is_pair &= met.items[earlier.clip(min=0)] != met.items
        for nearer in range(1, distance):  # an item that was met again since is nearer than this
            is_pair &= met.items[earlier.clip(min=0)] != met.items[(met.starts - nearer).clip(min=0)]
        later = np.flatnonzero(is_pair)
        found += _both_ways(earlier[later], later, LATER_SESSION, EARLIER_SESSION)
    return found


def _both_ways(earlier: np.ndarray, later: np.ndarray, forth: int, back: int) -> list[Pairs]:
    """Return pairs under either place, as 32-bit numbers: there are dozens for each event."""
    earlier, later = earlier.astype(np.int32), later.astype(np.int32)
    kinds = [np.full(len(later), kind, dtype=np.int8) for kind in (forth, back)]
    return [(earlier, later, kinds[0]), (later, earlier, kinds[1])]
