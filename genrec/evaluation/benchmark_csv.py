"""Figures as rows of a CSV file, one per model, configuration, seed, protocol, behavior and metric.

The files under `benchmarks/quality/` have this form. A figure measured again replaces the old one in its place, so a
file holds each figure once; version control holds the past.
"""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from genrec.evaluation.report import EvaluationReport
from genrec.files import write_atomically

COLUMNS = (
    *("model", "config", "commit", "seed", "protocol", "behavior", "metric"),
    *("value", "low", "high", "records", "seconds", "peak_mb"),
)
KEY_COLUMNS = ("model", "config", "seed", "protocol", "behavior", "metric")

CsvRow = dict[str, str]


def update_benchmark_csv(
    path: str | Path,
    report: EvaluationReport,
    *,
    config: str,
    commit: str,
    seed: int | str,
    metrics: Sequence[str] | None = None,
    seconds: float | None = None,
    peak_mb: float | None = None,
) -> list[CsvRow]:
    """Write a report's rows into a CSV file, atomically, and return them as written.

    Args:
        path: The file; made if missing.
        report: What to write.
        config: Name of the configuration, such as a recipe's.
        commit: The commit that was measured.
        seed: The run's seed, or `all` for a figure over several.
        metrics: Only these metrics; None means all of the report.
        seconds: Time the run took; None means the time of recommending that the report measured.
        peak_mb: Most memory held in the run; None means what the report measured.

    Raises:
        ValueError: If the file has other columns.
    """
    new = [
        {
            **{name: str(row[name]) for name in ("model", "protocol", "behavior", "metric", "records")},
            "config": config,
            "commit": commit,
            "seed": str(seed),
            **{name: _number(row[name]) for name in ("value", "low", "high")},
            "seconds": _number(_measured(report, row["model"], row["protocol"], "seconds", seconds)),
            "peak_mb": _number(_measured(report, row["model"], row["protocol"], "peak_mb", peak_mb)),
        }
        for row in report.rows
        if metrics is None or row["metric"] in metrics
    ]
    rows = {_key(row): row for row in [*read_benchmark_csv(path), *new]}
    _write(path, rows.values())
    return new


def read_benchmark_csv(path: str | Path) -> list[CsvRow]:
    """Return the rows of a benchmark file as text, none if there is no file.

    Raises:
        ValueError: If the file has other columns.
    """
    if not Path(path).exists():
        return []
    with Path(path).open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(
                f"{path} must have the columns {','.join(COLUMNS)}, got {','.join(reader.fieldnames or ())}. "
                "Write to another file."
            )
        return list(reader)


def _write(path: str | Path, rows: Iterable[CsvRow]) -> None:
    with write_atomically(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _key(row: CsvRow) -> tuple[str, ...]:
    return tuple(row[name] for name in KEY_COLUMNS)


def _measured(report: EvaluationReport, model: str, protocol: str, name: str, given: float | None) -> float | None:
    return given if given is not None else report.runs.get((model, protocol), {}).get(name)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
