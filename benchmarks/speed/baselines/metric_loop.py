"""Evaluation as most recommender code does it: one user after the other, lists and sets, a running sum per metric."""

import math
from collections import defaultdict

from genrec.data.histories import Queries
from genrec.recommender.base import Recommender

CUTOFFS = (1, 5, 10)


def evaluate_by_loop(recommender: Recommender, queries: Queries, k: int = 10) -> dict[tuple[str, str], float]:
    """Return the mean of each metric, by behavior (and `merged`) and name.

    The metrics are hit, recall and NDCG at 1, 5 and 10 and MRR at k, and those at k once more for the targets that a
    user's history holds (`repeat`) and for those that it does not (`first-time`).
    """
    sums: dict[tuple[str, str], float] = defaultdict(float)
    counts: dict[tuple[str, str], int] = defaultdict(int)
    names = queries.targets.ladder.names
    for number, behavior in enumerate(names):
        wanted = [set(future.items[future.behaviors == number].tolist()) for future in queries.targets]
        rows = [row for row, items in enumerate(wanted) if items]
        lists = recommender.recommend(queries.histories, k=k, behavior=behavior).items.tolist() if rows else []
        for row in rows:
            seen = set(queries.histories[row].items.tolist())
            for metric, value in _values(lists[row], wanted[row], seen, k).items():
                for group in (behavior, "merged"):
                    sums[group, metric] += value
                    counts[group, metric] += 1
    return {key: sums[key] / counts[key] for key in sums}


def _values(listed: list[int], wanted: set[int], seen: set[int], k: int) -> dict[str, float]:
    values = {}
    for cutoff in CUTOFFS:
        values |= _at(listed[:cutoff], wanted, cutoff, "")
    values[f"mrr@{k}"] = _reciprocal_rank(listed[:k], wanted)
    for name, part in (("repeat", wanted & seen), ("first-time", wanted - seen)):
        if part:
            values |= _at(listed[:k], part, k, f"/{name}")
            values[f"mrr@{k}/{name}"] = _reciprocal_rank(listed[:k], part)
    return values


def _at(listed: list[int], wanted: set[int], cutoff: int, suffix: str) -> dict[str, float]:
    ranks = [rank for rank, item in enumerate(listed, start=1) if item in wanted]
    best = sum(1 / math.log2(rank + 1) for rank in range(1, min(cutoff, len(wanted)) + 1))
    return {
        f"hit@{cutoff}{suffix}": float(bool(ranks)),
        f"recall@{cutoff}{suffix}": len(ranks) / len(wanted),
        f"ndcg@{cutoff}{suffix}": sum(1 / math.log2(rank + 1) for rank in ranks) / best,
    }


def _reciprocal_rank(listed: list[int], wanted: set[int]) -> float:
    return next((1 / rank for rank, item in enumerate(listed, start=1) if item in wanted), 0.0)
