"""Validation of scoring models by NDCG@10: over the whole catalog, or among the targets and random other items.

The second is what GAMER's appendix A stops its discriminative baselines by: 1,000 candidates per query. It is cheap,
but orders models differently than the whole catalog does, so it only ever chooses a checkpoint.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from genrec.data.histories import Queries
from genrec.evaluation.metrics import ndcg
from genrec.evaluation.protocols import ItemSets, Task, task_of
from genrec.recommender.base import NO_ITEM
from genrec.recommender.scoring import SCORES_PER_CHUNK, ScoringRecommender

K = 10


def ranking_tasks(queries: Queries, behaviors: Sequence[str]) -> list[Task]:
    """Return the records of each behavior, behaviors without any left out.

    Raises:
        ValueError: If none is left.
    """
    tasks = [task for behavior in behaviors if len(task := task_of(queries, behavior))]
    if not tasks:
        raise ValueError(
            f"None of the {len(queries)} validation queries has a target of {list(behaviors)}. Check the split, or "
            "rank for other behaviors."
        )
    return tasks


def draw_candidates(task: Task, num_candidates: int, seed: int) -> np.ndarray:
    """Draw the items that each record is ranked among: its targets and random items that its history lacks.

    Args:
        task: The records.
        num_candidates: How many there are of each record; of a small catalog, perhaps fewer. Targets always stay.
        seed: Seed of the draw.

    Returns:
        Catalog rows `[records, candidates]` int32, -1 where a record has fewer.
    """
    generator = np.random.default_rng(seed)
    width = min(task.targets.num_items, max(num_candidates, int(task.targets.sizes.max(initial=0))))
    candidates = np.full((len(task), width), NO_ITEM, dtype=np.int32)
    for records in _chunks(task):
        keys = generator.random((len(records), task.targets.num_items), dtype=np.float32)
        keys.flat[_pairs_of(task.seen, records)] = np.inf
        keys.flat[_pairs_of(task.targets, records)] = -1.0
        items = np.argpartition(keys, width - 1, axis=1)[:, :width]
        order = np.argsort(np.take_along_axis(keys, items, axis=1), axis=1)
        items = np.take_along_axis(items, order, axis=1)
        lowest = np.take_along_axis(keys, items, axis=1)
        is_drawn = (lowest < 0) | ((np.arange(width) < num_candidates) & (lowest < np.inf))
        candidates[records] = np.where(is_drawn, items, NO_ITEM)
    return candidates


def _chunks(task: Task) -> Iterator[np.ndarray]:
    """Yield the records a few at a time: as many as a recommender scores at a time, over the whole catalog."""
    size = max(1, SCORES_PER_CHUNK // max(1, task.targets.num_items))
    for start in range(0, len(task), size):
        yield np.arange(start, min(start + size, len(task)))


def _pairs_of(sets: ItemSets, records: np.ndarray) -> np.ndarray:
    """Return the pairs of some records in a row, counted from the first of them, `[pairs]`."""
    first = records[0] * sets.num_items
    begin, end = np.searchsorted(sets.pairs, [first, (records[-1] + 1) * sets.num_items])
    return sets.pairs[begin:end] - first


def ndcg_of(
    recommender: ScoringRecommender, queries: Queries, task: Task, candidates: np.ndarray | None = None
) -> np.ndarray:
    """Return NDCG@10 of each record of a task, `[records]`.

    Args:
        recommender: What is measured; its catalog is the queries'.
        queries: Those that the task was made from.
        task: The records.
        candidates: The items that may be listed, as `draw_candidates` gives them; None means all.
    """
    listed = np.full((len(task), K), NO_ITEM, dtype=np.int64)
    for records in [np.arange(len(task))] if candidates is None else _chunks(task):
        allow = None if candidates is None else _mask(candidates[records], task.targets.num_items)
        histories = queries.histories.select(task.rows[records])
        listed[records] = recommender.recommend(histories, k=K, behavior=task.behavior, allow=allow).items
    return ndcg(task.targets.contains(listed), task.targets.sizes, K)


def _mask(rows: np.ndarray, num_items: int) -> np.ndarray:
    """Return catalog rows, -1 for none, as a mask `[records, items]`."""
    mask = np.zeros((len(rows), num_items), dtype=bool)
    records, places = np.nonzero(rows != NO_ITEM)
    mask[records, rows[records, places]] = True
    return mask
