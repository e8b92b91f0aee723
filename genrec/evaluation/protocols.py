"""Which records are asked, and which items are right: the two protocols of GAMER (section 4.1.2) and their slices.

Behavior-specific: for each behavior, every user who shows it at least once in the asked session is one record, and its
targets are the distinct items of that behavior there. Target-behavior: the same for the strongest behavior alone.
`merged` is the average over all (user, behavior) records, so a behavior weighs by how often it is asked.

A slice keeps part of each record's targets: `cold` those no training event names, `warm` the others, `repeat` those
already in the user's history, `first-time` the others. A record without targets in a slice does not count there.
"""

from dataclasses import dataclass, replace

import numpy as np

from genrec.data.histories import Histories, ItemIndex, Queries

MERGED = "merged"
SLICES = ("cold", "warm", "repeat", "first-time")


@dataclass(frozen=True, eq=False)
class ItemSets:
    """A set of items for each record, stored as one sorted array of (record, item) pairs.

    Args:
        pairs: `record * num_items + item`, `[pairs]` int64, rising.
        num_records: How many sets, some of which may be empty.
        num_items: Size of the catalog.

    Example:
        >>> sets = ItemSets.of(records=np.array([1, 0, 1, 1]), items=np.array([3, 2, 3, 0]), num_records=2, num_items=4)
        >>> sets.sizes.tolist(), sets.contains(np.array([[2, 3], [2, 3]])).tolist()
        ([1, 2], [[True, False], [False, True]])
    """

    pairs: np.ndarray
    num_records: int
    num_items: int

    @classmethod
    def of(cls, records: np.ndarray, items: np.ndarray, num_records: int, num_items: int) -> "ItemSets":
        """Collect items `[events]` into the sets of their records `[events]`; repeated items count once."""
        # Sorting these pairs, which come nearly in order, is a hundred times faster than the hash table of `np.unique`.
        pairs = np.sort(records * num_items + items)
        return cls(pairs[_begins(pairs)], num_records, num_items)

    @property
    def items(self) -> np.ndarray:
        """The item of each pair, `[pairs]`."""
        return self.pairs % self.num_items

    @property
    def sizes(self) -> np.ndarray:
        """Items per record, `[records]`."""
        return np.bincount(self.pairs // self.num_items, minlength=self.num_records)

    def contains(self, items: np.ndarray) -> np.ndarray:
        """Tell of items `[records, k]` whether each is in its record's set; negative entries never are."""
        pairs = np.arange(self.num_records)[:, None] * self.num_items + items
        return self._holds(pairs) & (items >= 0)

    def also_in(self, other: "ItemSets") -> np.ndarray:
        """Tell of each pair whether the other sets hold it, `[pairs]` bool."""
        return other._holds(self.pairs)

    def keep(self, is_kept: np.ndarray) -> "ItemSets":
        """Keep the pairs where the mask `[pairs]` is true."""
        return replace(self, pairs=self.pairs[is_kept])

    def _holds(self, pairs: np.ndarray) -> np.ndarray:
        if len(self.pairs) == 0:
            return np.zeros(pairs.shape, dtype=bool)
        nearest = np.minimum(np.searchsorted(self.pairs, pairs), len(self.pairs) - 1)
        return self.pairs[nearest] == pairs


@dataclass(frozen=True, eq=False)
class Task:
    """All records of one behavior.

    Args:
        behavior: The asked behavior.
        rows: The queries that are asked, `[records]`.
        targets: The right items of each record, never empty.
        seen: The items of each record's history.
    """

    behavior: str
    rows: np.ndarray
    targets: ItemSets
    seen: ItemSets

    def __len__(self) -> int:
        return len(self.rows)

    def slices(self, item_counts: np.ndarray | None) -> dict[str, ItemSets]:
        """Return the targets of each slice; `cold` and `warm` only if training counts `[items]` are given."""
        is_repeat = self.targets.also_in(self.seen)
        kept = {"repeat": is_repeat, "first-time": ~is_repeat}
        if item_counts is not None:
            is_warm = item_counts[self.targets.items] > 0
            kept = {"cold": ~is_warm, "warm": is_warm, **kept}
        return {name: self.targets.keep(mask) for name, mask in kept.items()}


def task_of(queries: Queries, behavior: str) -> Task:
    """Return the records of one behavior.

    Args:
        queries: What is asked. Targets that lie outside the catalog of the histories are left out.
        behavior: A behavior of the targets' ladder.

    Example:
        >>> from genrec.data.histories import as_histories
        >>> past = as_histories([[("a", "view")], [("a", "view")]], item_ids=["a", "b"], ladder="view,buy")
        >>> future = as_histories([[("b", "view")], [("a", "buy"), ("b", "buy")]], ["a", "b"], "view,buy")
        >>> task = task_of(Queries(past, future), "buy")
        >>> task.rows.tolist(), task.targets.items.tolist()
        ([1], [0, 1])
    """
    histories, targets = queries.histories, queries.targets
    num_items = len(histories.item_ids)
    is_asked = targets.behaviors == targets.ladder.index(behavior)
    asked_rows, asked_items = targets.rows[is_asked], rows_in(targets, histories.item_ids)[is_asked]
    is_known = asked_items >= 0
    asked_rows = asked_rows[is_known]
    begins = _begins(asked_rows)  # events stand user by user, so the rows rise
    rows, records = asked_rows[begins], np.cumsum(begins) - 1
    past = histories.select(rows)
    return Task(
        behavior=behavior,
        rows=rows,
        targets=ItemSets.of(records, asked_items[is_known], len(rows), num_items),
        seen=ItemSets.of(past.rows, past.items, len(rows), num_items),
    )


def rows_in(histories: Histories, item_ids: np.ndarray) -> np.ndarray:
    """Return each event's row in another catalog, `[events]`, -1 where that catalog lacks the item."""
    return rows_between(histories.item_ids, item_ids)[histories.items]


def rows_between(item_ids: np.ndarray, other_ids: np.ndarray) -> np.ndarray:
    """Return for every row of one catalog the row of the same item in another, `[items]`, -1 where it is missing."""
    if item_ids is other_ids or np.array_equal(item_ids, other_ids):
        return np.arange(len(item_ids))
    return ItemIndex(other_ids).rows(item_ids)


def _begins(rising: np.ndarray) -> np.ndarray:
    """Tell of each number of a rising row whether it is the first of its kind, bool of the same shape.

    >>> _begins(np.array([3, 3, 5])).tolist()
    [True, False, True]
    """
    begins = np.ones(len(rising), dtype=bool)
    begins[1:] = rising[1:] != rising[:-1]
    return begins
