"""Is one run better than another? A paired bootstrap over users, widened by how much the trainings differ.

Resamples of two or three seeds know no other trainings than those: two seeds of one sign make every resample of that
sign. With several seeds each resample of users is therefore moved by a draw of Student's t, of one degree of freedom
less than there are seeds, times the standard error of the mean over them: a paired t over trainings, as in Dietterich,
Approximate statistical tests for comparing supervised classification learning algorithms (Neural Computation, 1998).
Adding a part for users and a part for seeds follows Fisher, The fiducial argument in statistical inference (Annals of
Eugenics, 1935). One t over both, with Satterthwaite's degrees of freedom, would find twice as many differences between
equal models as it may, where there are two seeds. That trainings are a source of variance that counts: Bouthillier et
al., Accounting for variance in machine learning benchmarks (MLSys, 2021).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genrec.evaluation.bootstrap import percentile_interval, sums_by_user, user_resamples
from genrec.evaluation.protocols import MERGED
from genrec.evaluation.records import Records
from genrec.evaluation.report import EvaluationReport

Reports = EvaluationReport | Sequence[EvaluationReport]


@dataclass(frozen=True)
class Comparison:
    """The first run minus the second on the same records.

    Args:
        difference: Mean difference of the metric.
        low: Lower end of its interval.
        high: Upper end of its interval.
        p: Two-sided bootstrap p-value of no difference; never below `2 / (resamples + 1)`.
        first: Mean of the first run.
        second: Mean of the second run.
        records: How many records both were asked.
        num_seeds: How many pairs of runs were averaged. With one, interval and p-value are about these two trainings:
            they say nothing of others.
    """

    difference: float
    low: float
    high: float
    p: float
    first: float
    second: float
    records: int
    num_seeds: int

    @property
    def relative(self) -> float:
        """The difference as a share of the second run; infinite if that is 0 and the first is not."""
        if self.second == 0:
            return float(np.sign(self.difference) * np.inf) if self.difference else 0.0
        return self.difference / self.second


def compare(
    first: Reports,
    second: Reports,
    metric: str = "ndcg@10",
    *,
    behavior: str = MERGED,
    models: tuple[str | None, str | None] = (None, None),
    protocol: str | None = None,
    num_bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compare two runs record by record.

    Each resample draws users with replacement, all records of a user together; with several seeds a draw of Student's
    t stands for how training fell out, so that the interval covers both. With a single seed it covers who was asked.

    Args:
        first: The report of the first run, or one per seed.
        second: The report of the second run, or one per seed, paired with the first's by position.
        metric: Name of the compared metric.
        behavior: A behavior, or `merged`.
        models: Which model of each report; may be left out where a report has only one.
        protocol: Which protocol; may be left out where the reports have only one.
        num_bootstrap: How many resamples.
        confidence: Probability that the interval covers.
        seed: Seed of the resamples.

    Raises:
        ValueError: If the numbers of reports differ, the metric is missing, or the records are not the same.
    """
    firsts = [first] if isinstance(first, EvaluationReport) else list(first)
    seconds = [second] if isinstance(second, EvaluationReport) else list(second)
    if len(firsts) != len(seconds) or not firsts:
        raise ValueError(f"Runs are compared in pairs, but there are {len(firsts)} and {len(seconds)}.")
    runs_a = [report.records_of(models[0], protocol) for report in firsts]
    runs_b = [report.records_of(models[1], protocol) for report in seconds]
    reference = runs_a[0]
    values_a, values_b = (
        np.stack([_aligned(run, reference, metric, behavior) for run in runs], axis=1) for runs in (runs_a, runs_b)
    )  # [records, seeds]
    users, num_users = reference.user_numbers()
    sums, counts = sums_by_user(values_a - values_b, users[reference.is_in(behavior)], num_users)
    if not counts.any():
        raise ValueError(f"No record of {behavior!r} counts for {metric!r}, so there is nothing to compare.")
    resampled = _resample(sums.mean(axis=1), counts[:, 0], num_bootstrap, seed)
    if len(runs_a) > 1:
        resampled += _drawn_trainings(sums.sum(axis=0) / counts[:, 0].sum(), num_bootstrap, seed + 1)
    low, high = percentile_interval(resampled[:, None], confidence)
    return Comparison(
        difference=float(np.nanmean(values_a - values_b)),
        low=float(low[0]),
        high=float(high[0]),
        p=_two_sided(resampled),
        first=float(np.nanmean(values_a)),
        second=float(np.nanmean(values_b)),
        records=int(counts[:, 0].sum()),
        num_seeds=len(runs_a),
    )


def _aligned(run: Records, reference: Records, metric: str, behavior: str) -> np.ndarray:
    """Return a run's values of one behavior in the order of the reference's records, `[records]`."""
    if metric not in run.values:
        raise ValueError(f"{run.model!r} has no records of {metric!r}. It has: {', '.join(run.values)}.")
    keys, wanted = _keys(run, behavior), _keys(reference, behavior)
    values = run.values[metric][run.is_in(behavior)]
    if keys != wanted:
        position = {key: row for row, key in enumerate(keys)}
        if position.keys() != set(wanted):
            raise ValueError(
                f"{run.model!r} was asked {len(keys)} records and {reference.model!r} {len(wanted)}, and they are not "
                "of the same users and behaviors. Compare runs on the same queries."
            )
        values = values[[position[key] for key in wanted]]
    return values


def _keys(run: Records, behavior: str) -> list[tuple[object, str, int]]:
    """Return the user and behavior of each record, and how often the same pair was asked before."""
    is_in = run.is_in(behavior)
    asked: Counter[tuple[object, str]] = Counter()
    keys = []
    for pair in zip(run.users[is_in].tolist(), run.behaviors[is_in].tolist(), strict=True):
        keys.append((*pair, asked[pair]))
        asked[pair] += 1
    return keys


def _resample(sums: np.ndarray, counts: np.ndarray, num_bootstrap: int, seed: int) -> np.ndarray:
    """Return the mean difference of each resample, `[resamples]`, NaN where no user with a record was drawn.

    Args:
        sums: Each user's summed difference, the mean over seeds, `[users]`.
        counts: Records per user, `[users]`.
        num_bootstrap: How many resamples.
        seed: Seed of the draws.
    """
    means = []
    for draws in user_resamples(len(sums), num_bootstrap, seed):
        totals = draws @ counts
        with np.errstate(invalid="ignore"):
            means.append(draws @ sums / totals)
    return np.concatenate(means)


def _drawn_trainings(differences: np.ndarray, num_bootstrap: int, seed: int) -> np.ndarray:
    """Return how far the mean over other seeds may lie from that of these, `[resamples]`.

    Args:
        differences: The mean difference of each pair of runs, `[seeds]`, two at least.
        num_bootstrap: How many resamples.
        seed: Seed of the draws.
    """
    num_seeds = len(differences)
    standard_error = differences.std(ddof=1) / np.sqrt(num_seeds)
    return standard_error * np.random.default_rng(seed).standard_t(num_seeds - 1, size=num_bootstrap)


def _two_sided(resampled: np.ndarray) -> float:
    """Return twice the smaller share of resamples on either side of zero, at most 1."""
    drawn = resampled[~np.isnan(resampled)]
    tail = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return float(min(1.0, 2 * (tail + 1) / (len(drawn) + 1)))
