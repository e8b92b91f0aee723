"""How fast the rungs of the ablation ladder search: the same users, one thread, all rungs in turn."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.speed.timing import no_garbage_collection, order_of_runs
from genrec.cli.evaluating import load_recommender
from genrec.cli.stages import Run

NUM_USERS, REPEATS, DRAW_SEED = 200, 3, 0


class SearchSpeed(NamedTuple):
    """How fast one rung searches.

    Args:
        users_per_second: At the median time.
        relative: The first rung's time over this one's, the median over rounds; 1 for the first.
        users: How many users were asked at a time.
        device: Where the model ran, `cpu` or `cuda`.
    """

    users_per_second: float
    relative: float
    users: int
    device: str = "cpu"


def search_speeds(runs: Mapping[str, Run]) -> dict[str, SearchSpeed]:
    """Time the search of each rung's checkpoint after one untimed call.

    All are asked for the target behavior of the same test users, drawn once.
    """
    first = next(iter(runs.values()))
    protocol, k, ladder = first.folder.primary, first.recipe.evaluation.k, first.prepared.ladder
    queries = first.prepared.split(protocol).test
    num_users = min(NUM_USERS, len(queries))
    rows = np.sort(np.random.default_rng(DRAW_SEED).choice(len(queries), num_users, replace=False))
    histories = queries.histories.select(rows)
    seconds: dict[str, list[float]] = defaultdict(list)
    with one_thread():
        recommenders = {name: load_recommender(run, protocol) for name, run in runs.items()}
        for recommender in recommenders.values():
            recommender.recommend(histories, k=k, behavior=ladder.target)
        for name in order_of_runs(dict.fromkeys(runs, REPEATS)):
            with no_garbage_collection():
                started = time.perf_counter()
                recommenders[name].recommend(histories, k=k, behavior=ladder.target)
                seconds[name].append(time.perf_counter() - started)
    device, reference = "cuda" if torch.cuda.is_available() else "cpu", next(iter(seconds.values()))
    return {name: speed_of(seconds[name], reference, num_users, device) for name in runs}


def speed_of(seconds: list[float], reference: list[float], num_users: int, device: str = "cpu") -> SearchSpeed:
    """Return a rung's speed from its times and, round by round, those of the first.

    >>> speed_of([2.0, 4.0, 2.5], [2.0, 2.0, 2.0], num_users=10)
    SearchSpeed(users_per_second=4.0, relative=0.8, users=10, device='cpu')
    """
    ratios = np.array(reference) / np.array(seconds)
    return SearchSpeed(num_users / float(np.median(seconds)), float(np.median(ratios)), num_users, device)


@contextmanager
def one_thread() -> Iterator[None]:
    """Have torch compute with one thread meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
