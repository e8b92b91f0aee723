"""The figures of the ablation ladder, from the reports of its runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.quality.ladder_search import SearchSpeed
from genrec.cli.provenance import commit
from genrec.cli.stages import Run
from genrec.data.histories import Queries
from genrec.evaluation import EvaluationReport
from genrec.evaluation.benchmark_csv import update_benchmark_csv
from genrec.evaluation.comparison import Comparison, compare
from genrec.evaluation.protocols import MERGED, Task, task_of
from genrec.evaluation.records import Records
from genrec.evaluation.tables import RULES

REPEAT, FIRST_TIME = "repeat", "first-time"


class RungRuns(NamedTuple):
    """A rung's runs and their reports, one per seed."""

    runs: list[Run]
    reports: list[EvaluationReport]


class BestRule(NamedTuple):
    """The best rule on the records, and what a rung gains over it."""

    name: str
    value: float
    rung: str
    gain: Comparison


@dataclass(frozen=True)
class RungFigures:
    """What a table and a plot say of one rung, means over its seeds.

    Args:
        name: The rung.
        title: Its name for readers.
        is_branch: Whether no rung follows it.
        merged: The merged metric with its interval, as the difference to a run that finds nothing.
        against: The rung it is compared with, and
        gain: the difference to that; both None for the first.
        repeat: The metric on targets that the user had met before; NaN if there are none.
        first_time: The metric on the others.
        repeat_part: What repeat targets add to the merged metric.
        first_time_part: What the others add; both sum to it.
        train_seconds: Seconds of training one seed.
        speed: How fast it searches.
        metric: Which metric.
    """

    name: str
    title: str
    is_branch: bool
    merged: Comparison
    against: str | None
    gain: Comparison | None
    repeat: float
    first_time: float
    repeat_part: float
    first_time_part: float
    train_seconds: float
    speed: SearchSpeed
    metric: str


def rung_figures(
    name: str,
    own: RungRuns,
    before: RungRuns | None,
    speed: SearchSpeed,
    *,
    title: str,
    is_branch: bool,
    against: str | None,
) -> RungFigures:
    """Return a rung's figures.

    Args:
        name: The rung, which is the model's name in its reports.
        own: Its runs.
        before: The runs it is compared with, in the order of the same seeds.
        speed: How fast it searches.
        title: Its name for readers.
        is_branch: Whether no rung follows it.
        against: The name of the rung it is compared with.
    """
    run = own.runs[0]
    k, protocol = run.recipe.evaluation.k, run.folder.primary
    metric, queries = f"ndcg@{k}", run.prepared.split(protocol).test
    records = [report.records_of(name, protocol) for report in own.reports]
    parts = np.mean([slice_parts(each, queries, k) for each in records], axis=0)
    slices = [np.mean([_slice_mean(each, f"{metric}/{part}") for each in records]) for part in (REPEAT, FIRST_TIME)]
    places = {"models": (name, against), "protocol": protocol}
    return RungFigures(
        *(name, title, is_branch),
        merged=mean_with_interval(records, metric),
        against=against,
        gain=None if before is None else compare(own.reports, before.reports, metric, **places),
        repeat=float(slices[0]),
        first_time=float(slices[1]),
        repeat_part=float(parts[0]),
        first_time_part=float(parts[1]),
        train_seconds=float(np.mean([each.kept.seconds_of(f"{protocol}/train") for each in own.runs])),
        speed=speed,
        metric=metric,
    )


def mean_with_interval(records: Sequence[Records], metric: str) -> Comparison:
    """Return the merged mean over seeds, whose interval covers who was asked and how training fell out.

    It is the difference to a run that finds nothing, so that it is resampled just as the gains are.
    """
    nothing = [replace(each, values={metric: np.zeros(len(each))}) for each in records]
    first, second = ([EvaluationReport([], [each]) for each in side] for side in (records, nothing))
    return compare(first, second, metric)


def slice_parts(records: Records, queries: Queries, k: int) -> tuple[float, float]:
    """Return what repeat and first-time targets add to the merged NDCG at k; both sum to it.

    A slice's NDCG stands over the best list of its own targets. Times that list's gain, over the gain of the best list
    of all targets, it is the slice's share of the record's NDCG.

    Args:
        records: One model's, of all behaviors.
        queries: What it was asked.
        k: Length of the lists.

    Raises:
        ValueError: If the records are not those of the queries.
    """
    tasks = [task for behavior in queries.targets.ladder.names if len(task := task_of(queries, behavior))]
    asked = [(task.behavior, user) for task in tasks for user in queries.histories.users[task.rows].tolist()]
    if asked != list(zip(records.behaviors.tolist(), records.users.tolist(), strict=True)):
        raise ValueError(f"The {len(records)} records are not those of the queries, which ask {len(asked)}.")
    parts = []
    for name in (REPEAT, FIRST_TIME):
        shares = np.concatenate([_ideal_share(task, name, k) for task in tasks])
        values = np.nan_to_num(records.values.get(f"ndcg@{k}/{name}", np.zeros(len(records))))
        parts.append(float((values * shares).mean()))
    return parts[0], parts[1]


def _ideal_share(task: Task, name: str, k: int) -> np.ndarray:
    """Return the gain of the best list of a slice's targets over that of all targets, `[records]`."""
    ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(k) + 2.0))])
    own, everything = (np.minimum(sets.sizes, k) for sets in (task.slices(None)[name], task.targets))
    share: np.ndarray = ideal[own] / ideal[everything]
    return share


def _slice_mean(records: Records, metric: str) -> float:
    """Return the mean over the records that count; NaN, and no warning, where none does."""
    values = records.values.get(metric, np.array([]))
    counted = values[~np.isnan(values)]
    return float(counted.mean()) if len(counted) else float("nan")


def best_rule_of(report: EvaluationReport, metric: str, rung: str, full: Sequence[EvaluationReport]) -> BestRule | None:
    """Return the rule with the highest merged metric, and what a rung gains over it; None if no rule was evaluated.

    Args:
        report: The one with the rules.
        metric: Which metric.
        rung: The rung, and
        full: its reports, one per seed.
    """
    rows = [row for row in report.select(metric=metric, behavior=MERGED) if row["model"] in RULES]
    if not rows:
        return None
    best = max(rows, key=lambda row: float(row["value"]))
    gain = compare(full, [report] * len(full), metric, models=(rung, best["model"]), protocol=best["protocol"])
    return BestRule(best["model"], float(best["value"]), rung, gain)


def write_csv(path: Path, figures: Sequence[RungFigures], runs: Mapping[str, RungRuns], config: str) -> None:
    """Write each rung's figures by seed, its gain and its search.

    `seconds` is training and recommending; a gain is the model `RUNG-minus-RUNG` with the seed `all`. The rules are
    left out: the log's own file has them, and a table over both would count them twice.
    """
    for each in figures:
        metrics = [each.metric, *(f"{each.metric}/{name}" for name in (REPEAT, FIRST_TIME))]
        place = {"config": config, "commit": commit() or ""}
        for run, report in zip(*runs[each.name], strict=True):
            protocol = run.folder.primary
            seconds = run.kept.seconds_of(f"{protocol}/train") + report.runs[each.name, protocol]["seconds"]
            own = EvaluationReport(report.select(model=each.name, protocol=protocol), runs=report.runs)
            seed = run.recipe.seed
            update_benchmark_csv(path, own, **place, seed=seed, metrics=metrics, seconds=round(seconds, 1))
        first = runs[each.name].runs[0]
        for seed, row in _rows_of(each, first.folder.primary, first.prepared.ladder.target, first.recipe.seed):
            update_benchmark_csv(path, EvaluationReport([row]), **place, seed=seed)


def _rows_of(each: RungFigures, protocol: str, target: str, seed: int) -> list[tuple[int | str, dict[str, Any]]]:
    """Return the rows of a rung's search and gain with their seeds."""
    place, none = {"model": each.name, "protocol": protocol}, {"low": None, "high": None}
    speeds = {"users/s": each.speed.users_per_second, "relative-users/s": each.speed.relative}
    rows: list[tuple[int | str, dict[str, Any]]] = [
        (seed, {**place, **none, "behavior": target, "metric": name, "value": value, "records": each.speed.users})
        for name, value in speeds.items()
    ]
    if each.gain is not None:
        gain = {"value": each.gain.difference, "low": each.gain.low, "high": each.gain.high}
        model = {"model": f"{each.name}-minus-{each.against}", "behavior": MERGED, "metric": each.metric}
        rows.append(("all", {**place, **model, **gain, "records": each.gain.records}))
    return rows
