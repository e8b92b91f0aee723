"""Choosing a rule's settings by merged NDCG on validation queries.

A small copy of the evaluation's main number: layers import one way, so what evaluation measures with cannot be imported
here. The two agree to the last bit (tested).
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from genrec.data.histories import Queries, as_histories
from genrec.recommender.base import NO_ITEM, Recommender

Settings = dict[str, Any]
MAX_PASSES = 2


def merged_ndcg(recommender: Recommender, queries: Queries, k: int = 10) -> float:
    """Return NDCG@k averaged over all (user, behavior) records: each behavior's users and their distinct items of it.

    Args:
        recommender: What is measured; its catalog is that of the queries' histories.
        queries: What is asked. Targets may have a catalog of their own.
        k: Length of the lists.

    Raises:
        ValueError: If the queries have no target.
    """
    targets = as_histories(queries.targets, queries.histories.item_ids, queries.targets.ladder)
    if len(targets.items) == 0:
        raise ValueError(f"{len(queries)} queries have no target, so nothing can be measured. Pass queries with some.")
    per_behavior = [
        _ndcg(recommender, queries, targets.rows[asked], targets.items[asked], name, k)
        for number, name in enumerate(targets.ladder.names)
        if (asked := targets.behaviors == number).any()
    ]
    return float(np.concatenate(per_behavior).mean())


def _ndcg(
    recommender: Recommender, queries: Queries, rows: np.ndarray, items: np.ndarray, behavior: str, k: int
) -> np.ndarray:
    """Return NDCG@k of one behavior for each row with a target, `[records]`."""
    asked, records = np.unique(rows, return_inverse=True)
    num_items = len(queries.histories.item_ids)
    target_pairs = np.unique(records * num_items + items)
    num_targets = np.bincount(target_pairs // num_items)
    listed = recommender.recommend(queries.histories.select(asked), k=k, behavior=behavior).items
    hits = np.isin(np.arange(len(asked))[:, None] * num_items + listed, target_pairs) & (listed != NO_ITEM)
    discounts = 1 / np.log2(np.arange(k) + 2.0)
    return (hits * discounts).sum(axis=1) / discounts.cumsum()[np.minimum(num_targets, k) - 1]


def coordinate_search(
    measure: Callable[[Settings], float], start: Settings, grid: Mapping[str, Sequence[Any]]
) -> list[Settings]:
    """Improve one setting at a time, in the grid's order, until a pass changes nothing or two passes are over.

    Args:
        measure: Gives the figure of some settings, higher is better.
        start: Where to begin; settings that the grid does not name stay.
        grid: The values to try for each setting. Of equal figures the one tried first wins, `start` before all.

    Returns:
        All trials, in order, each the settings and their `figure`; the best is the first of the highest figure.

    Example:
        >>> trials = coordinate_search(lambda s: -abs(s["x"] - 3), {"x": 0}, {"x": [1, 2, 3, 4]})
        >>> max(trials, key=lambda trial: trial["figure"])
        {'x': 3, 'figure': 0}
    """
    best, trials = dict(start), [{**start, "figure": measure(start)}]
    tried = {_key(start): trials[0]["figure"]}
    for _ in range(MAX_PASSES):
        before = dict(best)
        for name, value in itertools.chain.from_iterable(((n, v) for v in values) for n, values in grid.items()):
            settings = {**best, name: value}
            if _key(settings) not in tried:
                tried[_key(settings)] = measure(settings)
                trials.append({**settings, "figure": tried[_key(settings)]})
            if tried[_key(settings)] > tried[_key(best)]:
                best = settings
        if best == before:
            break
    return trials


def _key(settings: Settings) -> tuple[Any, ...]:
    return tuple(settings.values())
