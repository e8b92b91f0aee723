"""Validation of scoring models by NDCG@10: over the whole catalog, or among the targets and random other items.

The second is what GAMER's appendix A stops its discriminative baselines by: 1,000 candidates per query. It is cheap,
but orders models differently than the whole catalog does, so it only ever chooses a checkpoint.
"""

from collections.abc import Sequence

import numpy as np

from genrec.data.histories import Queries
from genrec.evaluation.metrics import ndcg
from genrec.evaluation.protocols import Task, task_of
from genrec.recommender.scoring import ScoringRecommender

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
        `[records, items]` bool.
    """
    shape = (len(task), task.targets.num_items)
    is_target, is_seen = (np.zeros(shape, dtype=bool) for _ in range(2))
    for mask, sets in ((is_target, task.targets), (is_seen, task.seen)):
        mask.flat[sets.pairs] = True
    keys = np.random.default_rng(seed).random(shape, dtype=np.float32)
    keys[is_seen] = np.inf
    keys[is_target] = -1.0
    chosen = np.argsort(keys, axis=1)[:, :num_candidates]
    candidates = np.zeros(shape, dtype=bool)
    np.put_along_axis(candidates, chosen, True, axis=1)
    return candidates & ~(is_seen & ~is_target) | is_target


def ndcg_of(
    recommender: ScoringRecommender, queries: Queries, task: Task, candidates: np.ndarray | None = None
) -> np.ndarray:
    """Return NDCG@10 of each record of a task, `[records]`.

    Args:
        recommender: What is measured; its catalog is the queries'.
        queries: Those that the task was made from.
        task: The records.
        candidates: The items that may be listed, `[records, items]` bool; None means all.
    """
    histories = queries.histories.select(task.rows)
    lists = recommender.recommend(histories, k=K, behavior=task.behavior, allow=candidates)
    return ndcg(task.targets.contains(lists.items), task.targets.sizes, K)
