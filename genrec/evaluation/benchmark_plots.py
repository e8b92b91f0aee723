"""A picture of a benchmark file: each model's metric with its interval, a panel per protocol."""

from pathlib import Path

from genrec.evaluation.benchmark_tables import Benchmark
from genrec.evaluation.plots import plot_metrics
from genrec.evaluation.report import EvaluationReport


def plot_benchmark(benchmark: Benchmark, path: str | Path, metric: str = "ndcg@10") -> Path:
    """Draw every complete cell of a metric: mean over seeds, outermost interval ends. Return the PNG's path.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If no model has the metric with all its seeds.
    """
    rows = []
    for protocol, behavior in benchmark.places([metric]):
        for line in (line for line in benchmark.lines if line.is_ours):
            cell = benchmark.cell(line, (protocol, behavior, metric))
            if cell is not None:
                names = {"model": line.label, "protocol": protocol, "behavior": behavior, "metric": metric}
                shown = line.figures[protocol, behavior, metric].values()
                records = max(int(row["records"]) for row in shown)
                rows.append({**names, "value": cell.mean, "low": cell.low, "high": cell.high, "records": records})
    return plot_metrics(EvaluationReport(rows), path, metric)
