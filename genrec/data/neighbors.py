"""Which items go together, counted anew for several moments of a log, so that a query may use what lay before it.

A co-occurrence table of the whole log knows which items a user will combine next month. Here a table is made for each
of a few moments from the events strictly before it, and a query is answered from the last table made before its time.
"""

from dataclasses import dataclass

import numpy as np

from genrec.data.histories import Histories

NO_ITEM = -1
TIE_SEED = 0
DIRECTED, UNDIRECTED = 0, 1


@dataclass(frozen=True, eq=False)
class NeighborTable:
    """Each item's neighbors in slices of time.

    Args:
        cutoffs: Seconds, rising, `[slices]` int64; slice `s` counts events strictly before `cutoffs[s]`.
        items: Each item's neighbors as catalog rows, the strongest first, `[slices, items, neighbors]` int32; -1 fills
            short rows.
        weights: What ties an item to its neighbor, `[slices, items, neighbors, 2]` float32, 0 where there is none:
            first the neighbor's share of all that followed the item (directed), then their co-occurrences over the
            square root of the product of their numbers of events (undirected). A co-occurrence `d` events apart counts
            `1 / d` in both.
    """

    cutoffs: np.ndarray
    items: np.ndarray
    weights: np.ndarray

    def slices_of(self, times: np.ndarray) -> np.ndarray:
        """Return for each time the last slice that ends at or before it, `[times]` int64.

        A time before the first cutoff gets slice 0, which `neighbor_table` leaves empty.
        """
        return np.searchsorted(self.cutoffs, np.asarray(times), side="right").clip(min=1) - 1


def neighbor_table(
    histories: Histories,
    num_slices: int = 12,
    num_neighbors: int = 20,
    window: int = 10,
    cutoffs: np.ndarray | None = None,
) -> NeighborTable:
    """Count which items go together up to several moments.

    Two events of one user that are at most `window` events apart co-occur; an item is no neighbor of its own. Neighbors
    are chosen by the sum of both weights (see `NeighborTable`), equal ones in a fixed random order of the catalog.

    Args:
        histories: All users' histories, with times.
        num_slices: How many moments, at equal numbers of events: slice 0 lies before the first event and is empty, the
            last one behind the last event and holds everything. Where many events share a second there may be fewer.
        num_neighbors: Neighbors kept per item.
        window: How far apart two events of a user may stand.
        cutoffs: The moments in seconds, instead of `num_slices` that follow the log; if the first lies behind the first
            event, an empty slice comes before it. What a slice counts depends on nothing but its moment and what lies
            before it.

    Raises:
        ValueError: If a number is below 1 (`num_slices` below 2), there are events without times, or `cutoffs` do not
            rise.

    Example:
        >>> from genrec.data.histories import as_histories
        >>> log = as_histories([[("a", "view", 10), ("b", "view", 20), ("c", "view", 30)]], ["a", "b", "c"], "view")
        >>> table = neighbor_table(log, num_neighbors=2, cutoffs=np.array([10, 25, 31]))
        >>> table.items[:, 0].tolist()  # the neighbors of a, before each moment
        [[-1, -1], [1, -1], [1, 2]]
        >>> table.weights[2, 0].tolist()  # of the two followers of a, c came two events later and counts half
        [[0.6666666865348816, 1.0], [0.3333333432674408, 0.5]]
    """
    _check(histories, num_slices, num_neighbors, window)
    cutoffs = (
        _even_cutoffs(histories.times, num_slices) if cutoffs is None else _given_cutoffs(histories.times, cutoffs)
    )
    num_items = len(histories.item_ids)
    pairs = _Pairs.of(histories, window)
    shape = (len(cutoffs), num_items, num_neighbors)
    items, weights = np.full(shape, NO_ITEM, dtype=np.int32), np.zeros((*shape, 2), dtype=np.float32)
    for number, cutoff in enumerate(cutoffs.tolist()):
        pairs.count_until(cutoff)
        num_events = np.bincount(histories.items[histories.times < cutoff], minlength=num_items)
        rows, places, neighbors, both = pairs.strongest(num_events, num_neighbors)
        items[number, rows, places] = neighbors
        weights[number, rows, places] = both
    return NeighborTable(cutoffs, items, weights)


class _Pairs:
    """Ordered pairs of items that co-occur anywhere in the log, and how much of each has been counted so far.

    Every pair stands in both directions. The second item's place in a fixed random order of the catalog decides among
    equals, so that order of the catalog, often one of popularity, does not.
    """

    def __init__(
        self, first: np.ndarray, second: np.ndarray, times: np.ndarray, weights: np.ndarray, num_items: int
    ) -> None:
        self.order = np.random.default_rng(TIE_SEED).permutation(num_items)
        place = np.empty(num_items, dtype=np.int64)
        place[self.order] = np.arange(num_items)
        forward, backward = first * num_items + place[second], second * num_items + place[first]
        keys, cells = np.unique(np.concatenate([forward, backward]), return_inverse=True)
        self.forward, self.backward = cells[: len(first)], cells[len(first) :]
        self.rows, self.columns = keys // num_items, self.order[keys % num_items]
        self.times, self.weights = times, weights
        self.directed, self.undirected = np.zeros(len(keys)), np.zeros(len(keys))
        self.num_counted = 0

    @classmethod
    def of(cls, histories: Histories, window: int) -> "_Pairs":
        """Find all pairs, in the order in which they came about."""
        rows, items, found = histories.rows, histories.items, []
        for distance in range(1, window + 1):
            is_pair = (rows[:-distance] == rows[distance:]) & (items[:-distance] != items[distance:])
            first = np.flatnonzero(is_pair)
            found.append((first, first + distance, np.full(len(first), 1 / distance)))
        first, second, weights = (np.concatenate(parts) for parts in zip(*found, strict=True))
        in_time = np.argsort(histories.times[second], kind="stable")
        first, second, weights = first[in_time], second[in_time], weights[in_time]
        return cls(items[first], items[second], histories.times[second], weights, len(histories.item_ids))

    def count_until(self, cutoff: int) -> None:
        """Count the pairs whose later event lies strictly before the cutoff; cutoffs must rise."""
        end = int(np.searchsorted(self.times, cutoff, side="left"))
        new = slice(self.num_counted, end)
        self.num_counted = end
        np.add.at(self.directed, self.forward[new], self.weights[new])
        np.add.at(self.undirected, self.forward[new], self.weights[new])
        np.add.at(self.undirected, self.backward[new], self.weights[new])

    def strongest(
        self, num_events: np.ndarray, num_neighbors: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return items, places in their lists, neighbors, `[kept]` each, and weights `[kept, 2]`."""
        seen = np.flatnonzero(self.undirected)
        rows, columns = self.rows[seen], self.columns[seen]
        followers = np.bincount(rows, weights=self.directed[seen], minlength=len(num_events))[rows]
        directed = np.divide(self.directed[seen], followers, out=np.zeros(len(seen)), where=followers > 0)
        undirected = self.undirected[seen] / np.sqrt(num_events[rows] * num_events[columns])
        best = np.lexsort((-(directed + undirected), rows))
        starts = np.searchsorted(rows, np.arange(len(num_events)))
        places = np.arange(len(rows)) - starts[rows]  # rows stay where they are: `best` reorders within each only
        kept = best[places < num_neighbors]
        both = np.stack([directed[kept], undirected[kept]], axis=1)
        return rows[kept], places[places < num_neighbors], columns[kept], both


def _even_cutoffs(times: np.ndarray, num_slices: int) -> np.ndarray:
    """Return moments at equal numbers of events, from the first event's time to one second after the last's."""
    if len(times) == 0:
        return np.zeros(1, dtype=np.int64)
    in_order = np.sort(times)
    places = np.linspace(0, len(times) - 1, num_slices).round().astype(np.int64)
    return np.unique(np.append(in_order[places[:-1]], in_order[-1] + 1))


def _given_cutoffs(times: np.ndarray, cutoffs: np.ndarray) -> np.ndarray:
    cutoffs = np.asarray(cutoffs, dtype=np.int64)
    if len(cutoffs) == 0 or (np.diff(cutoffs) <= 0).any():
        raise ValueError(f"`cutoffs` must be one or more rising moments in seconds, got {cutoffs.tolist()}.")
    first = times.min(initial=cutoffs[0])
    return cutoffs if cutoffs[0] <= first else np.append(first, cutoffs)


def _check(histories: Histories, num_slices: int, num_neighbors: int, window: int) -> None:
    least = {"num_slices": (num_slices, 2), "num_neighbors": (num_neighbors, 1), "window": (window, 1)}
    for name, (value, smallest) in least.items():
        if value < smallest:
            raise ValueError(f"`{name}` must be at least {smallest}, got {value}.")
    if len(histories.items) and not histories.times.any():
        raise ValueError("Slices of time need the time of each event, but these histories have none.")
