"""Ranking metrics on boolean hit matrices, and list metrics on recommended rows.

A ranking metric is a function `(hits [records, k], num_targets [records], k) -> [records]`; a record is one user asked
for one behavior, and its targets are distinct items. Definitions as in GAMER (section 4.1.2), which agree with the
usual ones. A list metric looks at what was recommended, whether or not it was right.
"""

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

RankingMetric = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
DEFAULT_CUTOFFS = (1, 5, 10)


def hit(hits: np.ndarray, num_targets: np.ndarray, k: int) -> np.ndarray:
    """Return 1 where at least one of the first k items is a target, else 0 (hit rate, HR).

    Args:
        hits: Whether the item at each rank is a target, `[records, ranks]` bool, at least `k` ranks.
        num_targets: Targets per record, `[records]`, each at least 1.
        k: How many ranks count.

    >>> hit(np.array([[False, True], [False, False]]), np.array([1, 1]), k=2).tolist()
    [1.0, 0.0]
    """
    return (hits[:, :k].sum(axis=1) > 0).astype(np.float64)


def recall(hits: np.ndarray, num_targets: np.ndarray, k: int) -> np.ndarray:
    """Return the share of the targets that stand among the first k items. Arguments as in `hit`.

    >>> recall(np.array([[True, False, True]]), np.array([4]), k=3).tolist()
    [0.5]
    """
    num_hits = hits[:, :k].sum(axis=1)
    return np.minimum(num_hits, num_targets) / num_targets


def ndcg(hits: np.ndarray, num_targets: np.ndarray, k: int) -> np.ndarray:
    """Return the discounted gain of the first k items over that of the best possible list. Arguments as in `hit`.

    Each hit at rank r gains `1 / log2(r + 1)`; hits beyond the number of targets gain nothing, so the value never
    exceeds 1. The best list has its `min(k, num_targets)` targets first.

    >>> ndcg(np.array([[True, False], [False, False]]), np.array([1, 2]), k=2).tolist()
    [1.0, 0.0]
    """
    discounts = 1 / np.log2(np.arange(k) + 2.0)
    counted = hits[:, :k] & (hits[:, :k].cumsum(axis=1) <= num_targets[:, None])
    ideal = discounts.cumsum()[np.minimum(num_targets, k) - 1]
    return (counted * discounts).sum(axis=1) / ideal


def mrr(hits: np.ndarray, num_targets: np.ndarray, k: int) -> np.ndarray:
    """Return one over the rank of the first hit among the first k items, 0 without a hit. Arguments as in `hit`.

    >>> mrr(np.array([[False, True, True]]), np.array([2]), k=3).tolist()
    [0.5]
    """
    top = hits[:, :k]
    return np.where(top.any(axis=1), 1 / (top.argmax(axis=1) + 1), 0.0)


def coverage(items: np.ndarray, num_items: int) -> float:
    """Return the share of the catalog that stands in at least one list.

    Args:
        items: Catalog rows, `[records, k]`; negative entries are no items.
        num_items: Size of the catalog.

    >>> coverage(np.array([[0, 1], [1, -1]]), num_items=4)
    0.5
    """
    return int(np.count_nonzero(np.bincount(items[items >= 0], minlength=num_items))) / num_items


def novelty(items: np.ndarray, item_counts: np.ndarray) -> np.ndarray:
    """Return the mean self-information of each list's items, in bits: rare items are news, popular ones are not.

    An item's probability is its share of the training events, each count raised by one so that unseen items count too.

    Args:
        items: Catalog rows, `[records, k]`; negative entries are no items. An empty list gives NaN.
        item_counts: Training events per catalog row, `[items]`.

    >>> novelty(np.array([[0, 1], [1, -1]]), np.array([2, 0])).tolist()  # probabilities 3/4 and 1/4
    [1.207518749639422, 2.0]
    """
    information = -np.log2((item_counts + 1) / (item_counts + 1).sum())
    return _mean_of_listed(information[items], items >= 0)


def seen_share(items: np.ndarray, is_seen: np.ndarray) -> np.ndarray:
    """Return the share of each list's items that the user's history already holds.

    Args:
        items: Catalog rows, `[records, k]`; negative entries are no items. An empty list gives NaN.
        is_seen: Whether each of them stands in the user's history, `[records, k]` bool.

    >>> seen_share(np.array([[4, 7], [4, -1]]), np.array([[True, False], [True, False]])).tolist()
    [0.5, 1.0]
    """
    return _mean_of_listed(is_seen.astype(np.float64), items >= 0)


def _mean_of_listed(values: np.ndarray, is_listed: np.ndarray) -> np.ndarray:
    num_listed = is_listed.sum(axis=1)
    total = np.where(is_listed, values, 0.0).sum(axis=1)
    return np.divide(total, num_listed, out=np.full(len(values), np.nan), where=num_listed > 0)


RANKING_METRICS: dict[str, RankingMetric] = {"hit": hit, "recall": recall, "ndcg": ndcg, "mrr": mrr}
LIST_METRICS = ("coverage", "novelty", "seen")


@dataclass(frozen=True)
class MetricName:
    """A metric and its cutoff, written `ndcg@10`.

    Args:
        base: One of `RANKING_METRICS` or `LIST_METRICS`.
        k: How many ranks count.

    Example:
        >>> MetricName.parse("ndcg@10")
        MetricName(base='ndcg', k=10)
    """

    base: str
    k: int

    @classmethod
    def parse(cls, name: str) -> "MetricName":
        """Read `ndcg@10`.

        Raises:
            ValueError: If the name has no cutoff of at least 1, or the metric is unknown.
        """
        known = [*RANKING_METRICS, *LIST_METRICS]
        match = re.fullmatch(r"([a-z]+)@([1-9]\d*)", name)
        if match is None:
            raise ValueError(f"A metric is written `name@k` with k at least 1, as in 'ndcg@10', got {name!r}.")
        if match[1] not in known:
            nearest = difflib.get_close_matches(match[1], known, n=1)
            hint = f"Did you mean '{nearest[0]}@{match[2]}'? " if nearest else ""
            raise ValueError(f"Unknown metric {name!r}. {hint}Known are: {', '.join(known)}.")
        return cls(match[1], int(match[2]))

    def __str__(self) -> str:
        return f"{self.base}@{self.k}"

    @property
    def is_ranking(self) -> bool:
        """Whether it needs targets; else it is a list metric."""
        return self.base in RANKING_METRICS

    def compute(self, hits: np.ndarray, num_targets: np.ndarray) -> np.ndarray:
        """Return the value of a ranking metric per record, `[records]`. Arguments as in `hit`."""
        return RANKING_METRICS[self.base](hits, num_targets, self.k)


def default_metrics(k: int) -> tuple[str, ...]:
    """Return hit, recall and NDCG at 1, 5, 10 (those up to k, and k), and MRR, coverage, novelty, seen share at k.

    >>> default_metrics(1)
    ('hit@1', 'recall@1', 'ndcg@1', 'mrr@1', 'coverage@1', 'novelty@1', 'seen@1')
    """
    cutoffs = sorted({cutoff for cutoff in DEFAULT_CUTOFFS if cutoff <= k} | {k})
    at_cutoffs = [f"{base}@{cutoff}" for base in ("hit", "recall", "ndcg") for cutoff in cutoffs]
    return (*at_cutoffs, f"mrr@{k}", *(f"{base}@{k}" for base in LIST_METRICS))
