"""Evaluation end to end: lists in, every metric out, beside a loop over users; the recommender costs next to nothing.

    python -m benchmarks.speed.evaluate [--quick] [--large]

`evaluate/loop` is the whole of `evaluate`, the intervals of a thousand resamples included, which the loop does not
have; `evaluate/loop_without_intervals` leaves them out. `--large` takes a million users.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.speed.baselines.metric_loop import CUTOFFS, evaluate_by_loop
from benchmarks.speed.harness import Contender, Results, Settings, run
from genrec.data.behaviors import BehaviorLadder
from genrec.data.histories import Histories, Queries
from genrec.evaluation import EvaluationReport, evaluate
from genrec.recommender import Recommendations

NUM_ITEMS, K = 20_000, 10
PAST, FUTURE = 30, 3  # mean interactions of a user before and in the asked session
METRICS = [*(f"{base}@{cutoff}" for base in ("hit", "recall", "ndcg") for cutoff in CUTOFFS), f"mrr@{K}"]
NUM_LISTS = 4_096


class PreparedLists:
    """Recommends lists that were drawn before, one of some thousands to each user.

    Args:
        item_ids: The catalog.
        seed: Decides the lists.
    """

    def __init__(self, item_ids: np.ndarray, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.item_ids = item_ids
        popular = min(1_000, len(item_ids))
        self.lists = np.stack([rng.choice(popular, K, replace=False) for _ in range(NUM_LISTS)])

    def recommend(self, histories: Histories, k: int = K, behavior: str | None = None) -> Recommendations:
        """Return each user's list, whatever is asked."""
        items = self.lists[histories.users % NUM_LISTS][:, :k]
        return Recommendations(items, np.zeros(items.shape), self.item_ids, histories.users)


def random_queries(num_users: int, seed: int) -> Queries:
    """Return users with skewed items and three behaviors; each has interactions before and in the asked session."""
    rng = np.random.default_rng(seed)

    def histories(mean: int) -> Histories:
        counts = rng.integers(1, 2 * mean, size=num_users)
        total = int(counts.sum())
        items = (NUM_ITEMS * rng.random(total) ** 3).astype(np.int64)
        behaviors = rng.choice(3, p=[0.7, 0.2, 0.1], size=total)
        zeros, offsets = np.zeros(total, dtype=np.int64), np.concatenate([[0], np.cumsum(counts)])
        ladder, catalog = BehaviorLadder.parse("view,cart,buy"), np.arange(NUM_ITEMS)
        return Histories(items, behaviors, zeros, zeros, offsets, np.arange(num_users), catalog, ladder)

    return Queries(histories(PAST), histories(FUTURE))


def as_figures(report: EvaluationReport) -> dict[tuple[str, str], float]:
    """Return a report's values by behavior and metric."""
    return {(row["behavior"], row["metric"]): row["value"] for row in report.rows}


def check_figures(outputs: dict[str, Any]) -> None:
    """Refuse contenders whose figures differ by more than rounding.

    Raises:
        AssertionError: If they do; the message names the figure.
    """
    expected = outputs["loop"]
    for name, report in outputs.items():
        figures = report if isinstance(report, dict) else as_figures(report)
        assert figures.keys() == expected.keys(), f"`{name}` has other figures than the loop."
        for key, value in expected.items():
            assert abs(figures[key] - value) < 1e-9, f"`{name}` and the loop disagree on {key}."


def measure(settings: Settings) -> Results:
    """Compare `evaluate` with a loop over users."""
    results = Results(settings)
    sizes = settings.choose([10_000, 100_000], [2_000]) + ([1_000_000] if settings.large else [])
    for num_users in sizes:
        _compare(results, num_users)
    return results


def _compare(results: Results, num_users: int) -> None:
    settings = results.settings
    queries = random_queries(num_users, settings.seed)
    recommender = PreparedLists(queries.histories.item_ids, settings.seed)
    ours: Callable[..., EvaluationReport] = partial(evaluate, recommender, queries, k=K, metrics=METRICS)
    rows = results.compare(
        f"evaluate {num_users}",
        [
            Contender("loop", lambda: evaluate_by_loop(recommender, queries, K)),
            Contender("genrec", ours),
            Contender("genrec_without_intervals", lambda: ours(num_bootstrap=1)),
        ],
        baseline="loop",
        work=num_users,
        unit="users",
        repeats=settings.choose(7, 3),
        max_seconds=60,
        check=check_figures,
    )
    results.ratio(f"evaluate/loop@{num_users}", rows["genrec"].ratio or 0.0)
    results.ratio(f"evaluate/loop_without_intervals@{num_users}", rows["genrec_without_intervals"].ratio or 0.0)


if __name__ == "__main__":
    run("evaluate", measure)
