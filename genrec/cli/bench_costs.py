"""`genrec bench costs`: what training cost each model of a bench: parameters, time per epoch, epochs, time in all."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from genrec.cli.bench_comparisons import Runs, find_runs
from genrec.evaluation.benchmark_tables import markdown_table
from genrec.files import read_json
from genrec.hub import TRAINING_REPORT


@dataclass(frozen=True)
class Cost:
    """What a model's training cost, means over seeds.

    Args:
        config: The recipe's name.
        seeds: How many seeds were run.
        parameters: Weights.
        epoch_seconds: Seconds per epoch, its validation included.
        best_epoch: Epochs to the best checkpoint; None if a training did not validate, and so has no best.
        best_seconds: Seconds to there, the mean epoch times their number; None likewise.
        seconds: Seconds of training in all.
        peak_mb: Peak memory of the process.
    """

    config: str
    seeds: int
    parameters: int
    epoch_seconds: float
    best_epoch: float | None
    best_seconds: float | None
    seconds: float
    peak_mb: float


def training_costs(runs: Runs) -> list[Cost]:
    """Return the cost of each configuration, the cheapest epoch first.

    Raises:
        FileNotFoundError: If a run has no training report.
    """
    by_config: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = defaultdict(list)
    for (config, _), folder in runs.folders.items():
        path = folder / "checkpoint" / TRAINING_REPORT
        if not path.is_file():
            raise FileNotFoundError(f"{folder} has no {TRAINING_REPORT} in its checkpoint. Run its recipe again.")
        by_config[config].append((read_json(path), read_json(folder / "bench.json")))
    costs = [_cost(config, reports) for config, reports in by_config.items()]
    return sorted(costs, key=lambda cost: cost.epoch_seconds)


def costs_table(costs: list[Cost]) -> str:
    """Return costs as a Markdown table."""
    header = [
        *("configuration", "seeds", "parameters", "s per epoch", "best epoch", "s to the best", "s in all", "peak MB")
    ]
    lines = [
        [
            *(cost.config, str(cost.seeds), f"{cost.parameters:,}", f"{cost.epoch_seconds:.1f}"),
            "-" if cost.best_epoch is None else f"{cost.best_epoch:.1f}",
            "-" if cost.best_seconds is None else f"{cost.best_seconds:.0f}",
            *(f"{cost.seconds:.0f}", f"{cost.peak_mb:.0f}"),
        ]
        for cost in costs
    ]
    return markdown_table([header, *lines])


def report_costs(folder: str | Path, *, say: Callable[[str], None]) -> None:
    """Print what the finished runs under a folder cost.

    Raises:
        FileNotFoundError: If there is no such folder, or a run lacks its training report.
        ValueError: If it has no finished run.
    """
    costs = training_costs(find_runs(folder))
    if not costs:
        raise ValueError(f"{folder} has no finished run. It is the `--output` of `genrec bench`.")
    say(costs_table(costs))


def _cost(config: str, reports: list[tuple[dict[str, Any], dict[str, Any]]]) -> Cost:
    trained = [report for report, _ in reports]
    per_epoch = [report["seconds"] / report["epoch"] for report in trained]
    best = [report["best_epoch"] for report in trained if "best_epoch" in report]
    has_best = len(best) == len(trained)
    return Cost(
        config,
        len(trained),
        max(report["parameters"] for report in trained),
        mean(per_epoch),
        mean(best) if has_best else None,
        mean(seconds * epochs for seconds, epochs in zip(per_epoch, best, strict=True)) if has_best else None,
        mean(report["seconds"] for report in trained),
        mean(record["peak_mb"] for _, record in reports),
    )
