"""Top k of any function that scores every item of the catalog: rules, matrix models, and models with `score_items`."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

from genrec.data.behaviors import BehaviorLadder
from genrec.data.event_columns import as_id_array
from genrec.data.histories import DEFAULT_GAP_MINUTES, Histories, ItemIndex
from genrec.recommender.base import NO_ITEM, Recommendations
from genrec.recommender.filters import ItemFilter, build_item_filter
from genrec.recommender.reading import check_gap_minutes, read_histories

SCORES_PER_CHUNK = 1 << 22
TIE_SEED = 0

ScoreFunction = Callable[[Histories, str], np.ndarray]


class ScoringRecommender:
    """Recommends the items that a function scores highest.

    Equal scores are ordered by a fixed random permutation of the catalog. Ordering them by row would favor whatever
    the catalog lists first, often the popular items, and so inflate the metrics of a rule with many ties.

    Args:
        score: Gives the scores `[users, items]` for histories and the name of the asked behavior. `-inf` marks an
            item that must not be recommended. Called with a few users at a time.
        item_ids: The catalog's ids in row order.
        ladder: The behavior ladder.
        gap_minutes: The pause that starts a new session in the histories that are asked about; a table's own `session`
            column goes before it.

    Example:
        >>> fixed = ScoringRecommender(lambda histories, behavior: np.array([[0.1, 0.9, 0.5]]), ["a", "b", "c"], "buy")
        >>> fixed.recommend([[("b", "buy")]], k=2, exclude_seen=True)[0]
        Recommendation(item_ids=['c', 'a'], scores=[0.5, 0.1])
    """

    def __init__(
        self,
        score: ScoreFunction,
        item_ids: Sequence[Any] | np.ndarray,
        ladder: str | Sequence[str] | BehaviorLadder,
        *,
        gap_minutes: float = DEFAULT_GAP_MINUTES,
    ) -> None:
        self.score = score
        self.item_ids = as_id_array(item_ids)
        self.ladder = BehaviorLadder.parse(ladder)
        self.gap_minutes = check_gap_minutes(gap_minutes)
        self._index = ItemIndex(self.item_ids)

    def recommend(
        self,
        histories: Any,
        k: int = 10,
        behavior: str | None = None,
        *,
        at: Any = None,
        exclude_seen: bool = False,
        allow: Iterable[Any] | np.ndarray | None = None,
        deny: Iterable[Any] | np.ndarray | None = None,
        unknown_items: str = "skip",
    ) -> Recommendations:
        """Return the k best items for each history; fewer where fewer qualify.

        Args:
            histories: Histories in any form that `genrec.data.histories.as_histories` reads.
            k: Items per user.
            behavior: The behavior to predict; None means the target behavior, the strongest of the ladder.
            at: The moment of the query, or one per user: seconds since 1970, a `datetime` or ISO text. Interactions at
                or after it are left out and counted in `num_later`. None means the histories' own `query_times`.
            exclude_seen: Whether to leave out what a user's history holds.
            allow: Item ids, or a mask over the catalog: nothing else may be recommended.
            deny: Item ids, or a mask over the catalog, that may not be recommended.
            unknown_items: `"skip"` or `"error"` for interactions whose item the catalog lacks.

        Raises:
            ValueError: If `k` is below 1, the behavior is unknown, `at` is no moment, or the scores have a wrong shape
                or hold NaN.
        """
        check_k(k)
        behavior = behavior if behavior is not None else self.ladder.target
        self.ladder.index(behavior)
        reading = {"at": at, "unknown_items": unknown_items, "gap_minutes": self.gap_minutes}
        read = read_histories(histories, self._index, self.ladder, **reading)
        item_filter = build_item_filter(read, exclude_seen=exclude_seen, allow=allow, deny=deny, index=self._index)
        items = np.full((len(read), k), NO_ITEM, dtype=np.int64)
        scores = np.full((len(read), k), -np.inf)
        chunk_size = max(1, SCORES_PER_CHUNK // max(1, len(self.item_ids)))
        for start in range(0, len(read), chunk_size):
            rows = np.arange(start, min(start + chunk_size, len(read)))
            items[rows], scores[rows] = top_k(self._scores(read.select(rows), behavior, item_filter, rows), k)
        return Recommendations(items, scores, self.item_ids, read.users, read.num_unknown, read.num_later)

    def _scores(self, histories: Histories, behavior: str, item_filter: ItemFilter, rows: np.ndarray) -> np.ndarray:
        scores = np.asarray(self.score(histories, behavior))
        expected = (len(histories), len(self.item_ids))
        if scores.shape != expected:
            raise ValueError(
                f"`score` must give one value per user and item, shape {expected}, got {scores.shape}. Return scores "
                "for the histories it was given, items in catalog order."
            )
        if np.isnan(scores).any():
            user, item = np.argwhere(np.isnan(scores))[0]
            raise ValueError(
                f"`score` gave NaN for user {rows[user]} and catalog row {item}. Use -inf to forbid an item."
            )
        allowed = item_filter.allowed(histories, rows)
        return scores if allowed is None else np.where(allowed, scores, -np.inf)


def check_k(k: int) -> None:
    """Refuse a list length below 1."""
    if k < 1:
        raise ValueError(f"`k`, the number of items per user, must be at least 1, got {k}.")


def top_k(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k highest scores of each row and where they are, ties in a fixed random order.

    Args:
        scores: `[users, items]`; `-inf` is never chosen.
        k: How many per row; may exceed the number of items.

    Returns:
        Items `[users, k]` int64, best first, filled with `NO_ITEM`; and their scores `[users, k]` float64, filled
        with `-inf`.

    Example:
        >>> top_k(np.array([[1.0, 3.0, -np.inf]]), k=3)
        (array([[ 1,  0, -1]]), array([[  3.,   1., -inf]]))
    """
    num_users, num_items = scores.shape
    kept = min(k, num_items)
    ranks = tie_ranks(num_items)
    columns, best = _highest(scores, ranks, kept)
    order = np.lexsort((ranks[columns], -best))
    best = np.take_along_axis(best, order, axis=1)
    chosen = np.take_along_axis(columns, order, axis=1)
    items = np.full((num_users, k), NO_ITEM, dtype=np.int64)
    values = np.full((num_users, k), -np.inf)
    items[:, :kept] = np.where(best == -np.inf, NO_ITEM, chosen)
    values[:, :kept] = best
    return items, values


def tie_ranks(num_items: int) -> np.ndarray:
    """Return each catalog row's place among equal scores, a fixed random permutation, `[items]`."""
    return np.random.default_rng(TIE_SEED).permutation(num_items)


def _highest(scores: np.ndarray, ranks: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where the `k` highest scores of each row are, in any order, and the scores, `[users, k]` each.

    Of the entries equal to the k-th, those of the lowest `ranks` are taken. Only a row whose next score is equal too
    has a choice there, so no other row is looked at twice.
    """
    num_items = scores.shape[1]
    floats = np.require(scores, dtype=np.result_type(scores, np.float32), requirements=["C", "W"])
    top = torch.from_numpy(floats).topk(min(k + 1, num_items), dim=1)
    values, columns = top.values.numpy(), top.indices.numpy()
    best, columns = values[:, :k].astype(np.float64), columns[:, :k]
    if k in (0, num_items):
        return columns, best
    threshold = values[:, k]
    rows = np.flatnonzero((values[:, k - 1] == threshold) & (threshold > -np.inf))
    by_rank = np.where(floats[rows] == threshold[rows, None], ranks, num_items)
    tied = torch.from_numpy(by_rank).topk(k, dim=1, largest=False).indices.numpy()
    num_above = (values[rows, :k] > threshold[rows, None]).sum(axis=1, keepdims=True)
    places = np.arange(k) - num_above  # among the tied ones, where not negative
    columns[rows] = np.where(places < 0, columns[rows], np.take_along_axis(tied, places.clip(min=0), axis=1))
    return columns, best
