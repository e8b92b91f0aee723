"""Two models of a benchmark file compared: over the records of their runs where these are at hand, else over seeds."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from genrec.cli.bench_records import RECORD_FILE
from genrec.evaluation.benchmark_tables import Benchmark, Line, Place, bench_command
from genrec.evaluation.comparison import Comparison, compare
from genrec.evaluation.multiple_tests import ModelTest, sign_flip_p
from genrec.evaluation.report import EvaluationReport
from genrec.files import read_json

RunKey = tuple[str, int]  # configuration, seed


@dataclass(frozen=True)
class Runs:
    """The runs of a bench and their reports, each read once.

    Args:
        folders: (configuration, seed) -> run folder.
    """

    folders: dict[RunKey, Path] = field(default_factory=dict)
    reports: dict[RunKey, EvaluationReport] = field(default_factory=dict)

    def report(self, key: RunKey) -> EvaluationReport:
        """Return the report of a run."""
        if key not in self.reports:
            self.reports[key] = EvaluationReport.load(self.folders[key] / "report.json")
        return self.reports[key]

    def hold(self, key: RunKey, model: str, protocol: str) -> bool:
        """Whether there is a run that asked this model on this protocol."""
        return key in self.folders and (model, protocol) in self.report(key).runs


def find_runs(folder: str | Path) -> Runs:
    """Return the finished runs under a folder.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If a pair was run in two places.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"There is no folder of runs {folder}. It is the `--output` of `genrec bench`.")
    found: dict[RunKey, Path] = {}
    for path in sorted(Path(folder).rglob(RECORD_FILE)):
        record = read_json(path)
        key = record["config"], record["seed"]
        if not record["finished"]:
            continue
        if key in found:
            raise ValueError(f"{found[key]} and {path.parent} both ran {key[0]} with seed {key[1]}. Keep one of them.")
        found[key] = path.parent
    return Runs(found)


def paired_test(
    benchmark: Benchmark, place: Place, first: Line, second: Line, runs: Runs | None, num_bootstrap: int
) -> ModelTest:
    """Test two models with the seeds that both have, over their records where the runs are at hand, else over seeds.

    Args:
        benchmark: The figures; both models have theirs at the place, and a seed in common.
        place: Protocol, behavior and metric.
        first: The one model.
        second: The other, which is taken away from the first.
        runs: The runs, from `find_runs`; None tests over seeds.
        num_bootstrap: Resamples.

    Raises:
        ValueError: If a run's figure is not the one in the benchmark file.
    """
    protocol, behavior, _ = place
    names = protocol, behavior, first.label, second.label
    seeds = benchmark.shared_seeds([first, second], place)
    num_seeds = len(seeds) if benchmark.are_drawn([first, second], place) else None
    measured, reason = _measured(num_seeds), ""
    if runs is not None:
        missing = _missing(place, first, second, seeds, runs)
        if missing:
            result, reason = None, f", no run of {missing[0][0]} with seed {missing[0][1]} on {protocol}"
        else:
            result, reason = _compared(place, first, second, seeds, runs, num_bootstrap)
        if result is not None:
            over = f"{result.records:,} records, {measured}"
            return ModelTest(*names, result.difference, result.low, result.high, result.p, over, num_seeds)
    values = [
        [float(line.figures[place][_seed_of(line, place, seed)]["value"]) for seed in seeds] for line in (first, second)
    ]
    differences = [a - b for a, b in zip(*values, strict=True)]
    over = f"{measured} alone{reason}"
    return ModelTest(*names, sum(differences) / len(seeds), None, None, sign_flip_p(differences), over, num_seeds)


def _measured(num_seeds: int | None) -> str:
    """Say over how many trainings a test is.

    >>> _measured(None), _measured(1), _measured(3)
    ('one measurement', '1 seed', '3 seeds')
    """
    return "one measurement" if num_seeds is None else f"{num_seeds} seed{'' if num_seeds == 1 else 's'}"


def _missing(place: Place, first: Line, second: Line, seeds: Sequence[int], runs: Runs) -> list[RunKey]:
    """Return the runs (configuration, seed) that should hold a line's records and do not exist."""
    needed = [(line, (line.config, _seed_of(line, place, seed))) for line in (first, second) for seed in seeds]
    return [key for line, key in needed if not runs.hold(key, line.model, place[0])]


def _seed_of(line: Line, place: Place, seed: int) -> int:
    rows = line.figures[place]
    return seed if seed in rows else min(rows)


def _compared(
    place: Place, first: Line, second: Line, seeds: Sequence[int], runs: Runs, num_bootstrap: int
) -> tuple[Comparison | None, str]:
    """Return the comparison over records, or why there is none."""
    protocol, behavior, metric = place
    reports = [
        [_report_of(runs, line, place, _seed_of(line, place, seed)) for seed in seeds] for line in (first, second)
    ]
    if not all(report.records for report in itertools.chain(*reports)):
        return None, ", the runs kept no records"
    try:
        models = first.model, second.model
        return (
            compare(
                reports[0],
                reports[1],
                metric,
                behavior=behavior,
                models=models,
                protocol=protocol,
                num_bootstrap=num_bootstrap,
            ),
            "",
        )
    except ValueError:  # a log that is drawn anew with each seed asks other users each time
        return None, ", the seeds asked different records"


def _report_of(runs: Runs, line: Line, place: Place, seed: int) -> EvaluationReport:
    """Return a run's report.

    Raises:
        ValueError: If its figure is not the one in the benchmark file.
    """
    report = runs.report((line.config, seed))
    value = report.value(place[2], place[1], line.model, place[0])
    written = line.figures[place][seed]["value"]
    if f"{value:.6g}" != written:
        where = f"{line.model}, {place[0]}, {place[1]}"
        raise ValueError(
            f"{runs.folders[line.config, seed]} reached {place[2]} {value:.6g} ({where}), but the benchmark file says "
            f"{written}: they are not of one run. Run {bench_command(line.config, seed)} again, or leave `--runs` out."
        )
    return report
