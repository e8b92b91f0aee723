"""What every recommender gives: `recommend(histories, k, behavior) -> Recommendations`.

Evaluation and the command line know nothing else of a model.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, overload

import numpy as np

NO_ITEM = -1


@dataclass(frozen=True)
class Recommendation:
    """One user's items, best first.

    Args:
        item_ids: At most k ids, none repeated, in the log's own type.
        scores: One score each, never rising. What a score means depends on the recommender; for a generative one it
            is the item's log-probability.
    """

    item_ids: list[Any]
    scores: list[float]

    def __len__(self) -> int:
        return len(self.item_ids)


class Recommendations(Sequence[Recommendation]):
    """Recommendations for many users, one row each; a row may be short when fewer than k items qualify.

    Args:
        items: Catalog rows, best first, `[users, k]`; `NO_ITEM` (-1) fills short rows at the end.
        scores: `[users, k]`; `-inf` where there is no item.
        item_ids: The catalog's ids in row order.
        users: User ids, `[users]`.
        num_unknown: Interactions that were skipped because the catalog lacks their item.
        num_later: Interactions that were left out because they are not before the query.

    Example:
        >>> lists = Recommendations(np.array([[1, -1]]), np.array([[0.5, -np.inf]]), np.array([7, 9]), np.array(["u"]))
        >>> lists[0]
        Recommendation(item_ids=[9], scores=[0.5])
    """

    def __init__(
        self,
        items: np.ndarray,
        scores: np.ndarray,
        item_ids: np.ndarray,
        users: np.ndarray,
        num_unknown: int = 0,
        num_later: int = 0,
    ) -> None:
        assert items.shape == scores.shape, (items.shape, scores.shape)
        assert len(users) == len(items), (len(users), len(items))
        self.items = items
        self.scores = scores
        self.item_ids = item_ids
        self.users = users
        self.num_unknown = num_unknown
        self.num_later = num_later

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, row: int) -> Recommendation: ...

    @overload
    def __getitem__(self, row: slice) -> "Recommendations": ...

    def __getitem__(self, row: int | slice) -> "Recommendation | Recommendations":
        if isinstance(row, slice):
            skipped = (self.num_unknown, self.num_later)
            return Recommendations(self.items[row], self.scores[row], self.item_ids, self.users[row], *skipped)
        real = self.items[row] != NO_ITEM
        return Recommendation(self.item_ids[self.items[row][real]].tolist(), self.scores[row][real].tolist())

    def __iter__(self) -> Iterator[Recommendation]:
        return (self[row] for row in range(len(self)))

    def to_table(self) -> Any:
        """Return a pyarrow table, one row per item: `user_id`, `item_id`, `rank` (from 1), `score`."""
        import pyarrow as pa  # not everywhere where models run

        rows, ranks = np.nonzero(self.items != NO_ITEM)
        return pa.table(
            {
                "user_id": pa.array(self.users[rows].tolist()),
                "item_id": pa.array(self.item_ids[self.items[rows, ranks]].tolist()),
                "rank": pa.array(ranks + 1),
                "score": pa.array(self.scores[rows, ranks].astype(np.float64)),
            }
        )


class Recommender(Protocol):
    """Anything that can be evaluated."""

    def recommend(self, histories: Any, k: int = 10, behavior: str | None = None, *, at: Any = None) -> Recommendations:
        """Return the k best items for each history.

        Args:
            histories: A list of histories, a table, or `Histories` (see `genrec.data.histories.as_histories`).
            k: Items per user.
            behavior: The behavior to predict; None means the target behavior, the strongest of the ladder.
            at: The moment of the query, or one per user (see `genrec.data.histories.asked_at`); None means the
                histories' own. Nothing at or after it may count.
        """
        ...
