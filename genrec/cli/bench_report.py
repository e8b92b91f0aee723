"""`genrec bench report`: from benchmark files to tables, paired tests between the models, LaTeX and plots."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from genrec.cli.bench_comparisons import Runs, find_runs, paired_test
from genrec.evaluation.benchmark_tables import (
    Benchmark,
    Line,
    Place,
    check_complete,
    latex_tables,
    markdown_table,
    markdown_tables,
    read_benchmark,
)
from genrec.evaluation.metrics import MetricName
from genrec.evaluation.multiple_tests import ModelTest, corrected
from genrec.evaluation.tables import UPPER_BOUND
from genrec.files import write_atomically

TABLE_METRICS = ("hit@1", "hit@5", "hit@10", "recall@1", "recall@5", "recall@10", "ndcg@5", "ndcg@10")
ALL_PAIRS = "all"


@dataclass(frozen=True)
class ReportSettings:
    """What a benchmark report shows.

    Args:
        seeds: The seeds of every figure; None means all that a file has.
        min_seeds: How many of them a figure needs; None means all.
        models: Only these models; None means all that a file has.
        metrics: The columns of the tables.
        metric: The metric of tests and plots.
        against: The model that each other one is tested against; None means the best of each table, `all` every pair.
        allow_pending: Show cells without all their seeds as `pending` instead of refusing the file.
        runs: Folder of the bench's runs, whose records of every user the tests are over; None tests over seeds.
        output: A folder for `<log>.md`, `<log>.tex` and `<log>.png`; None prints the Markdown.
        num_bootstrap: Resamples of the tests; no p-value is below 2 divided by it.
    """

    seeds: Sequence[int] | None = None
    min_seeds: int | None = None
    models: Sequence[str] | None = None
    metrics: Sequence[str] = TABLE_METRICS
    metric: str = "ndcg@10"
    against: str | None = None
    allow_pending: bool = False
    runs: str | None = None
    output: str | None = None
    num_bootstrap: int = 5000

    def __post_init__(self) -> None:
        for name in (*self.metrics, self.metric):
            MetricName.parse(name.partition("/")[0])


def report_benchmarks(paths: Sequence[str | Path], settings: ReportSettings, *, say: Callable[[str], None]) -> None:
    """Show the tables and tests of benchmark files, or write them; the files are all checked first.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If a file lacks a seed and that is not allowed, or the runs are not those of its figures.
    """
    benchmarks = [
        read_benchmark(path, seeds=settings.seeds, models=settings.models, min_seeds=settings.min_seeds)
        for path in paths
    ]
    runs = find_runs(settings.runs) if settings.runs is not None else None
    texts = []
    for benchmark in benchmarks:
        _check_has(benchmark, settings)
        if not settings.allow_pending:
            check_complete(benchmark, [*settings.metrics, settings.metric])
        texts.append(
            f"{markdown_tables(benchmark, settings.metrics)}\n\n{significance_text(benchmark, settings, runs)}"
        )
    for benchmark, text in zip(benchmarks, texts, strict=True):
        if settings.output is None:
            say(text + "\n")
        else:
            _write(benchmark, text, settings, say)


def significance_text(benchmark: Benchmark, settings: ReportSettings, runs: Runs | None) -> str:
    """Return the paired tests of a benchmark as a Markdown table, with what they were over."""
    tests = model_tests(benchmark, settings, runs)
    if not tests:
        return "No two models have all their seeds, so nothing is tested."
    header = ["protocol", "behavior", "first", "second", "difference", "interval", "p", "p (Holm)", "over"]
    lines = [header, *(_test_cells(test) for test in tests)]
    num_tested = sum(test.p is not None for test in tests)
    return "\n\n".join(
        [
            markdown_table(lines),
            f"Paired tests of {settings.metric}, first minus second; Holm's correction over the {num_tested} tests of "
            "this table. Over records: a bootstrap over users with 95 % interval, widened by Student's t over the "
            "seeds; with one seed it is about these very trainings. Over seeds alone: sign flips, exact up to 16 "
            "seeds, whose p is never below 2 / 2^seeds.",
        ]
    )


def model_tests(benchmark: Benchmark, settings: ReportSettings, runs: Runs | None) -> list[ModelTest]:
    """Return the tests of a benchmark on each protocol and behavior, corrected as one family."""
    tests = []
    for protocol, behavior in benchmark.places([settings.metric]):
        place = protocol, behavior, settings.metric
        for first, second in _pairs(benchmark, place, settings.against):
            if benchmark.shared_seeds([first, second], place):
                tests.append(paired_test(benchmark, place, first, second, runs, settings.num_bootstrap))
    return corrected(tests)


def _pairs(benchmark: Benchmark, place: Place, against: str | None) -> list[tuple[Line, Line]]:
    """Return which lines are compared: with one model, or each with each; the better first."""
    cells = [
        (line, benchmark.cell(line, place)) for line in benchmark.lines if line.is_ours and line.model != UPPER_BOUND
    ]
    ranked = sorted(((line, cell.mean) for line, cell in cells if cell), key=lambda entry: -entry[1])
    lines = [line for line, _ in ranked]
    if against == ALL_PAIRS:
        return list(itertools.combinations(lines, 2))
    if against is None:
        return [(lines[0], line) for line in lines[1:]] if lines else []
    own = [line for line in lines if against in (line.label, line.model)]
    return [(own[0], line) for line in lines if line is not own[0]] if own else []


def _test_cells(test: ModelTest) -> list[str]:
    interval = f"[{test.low:+.4f}, {test.high:+.4f}]" if test.low is not None and test.high is not None else "-"
    p, adjusted = ("-" if value is None else f"{value:.4f}" for value in (test.p, test.adjusted))
    names = [test.protocol, test.behavior, test.first, test.second]
    return [*names, f"{test.difference:+.4f}", interval, p, adjusted, test.basis]


def _check_has(benchmark: Benchmark, settings: ReportSettings) -> None:
    """Refuse metrics and models that a file does not have.

    Raises:
        ValueError: If one is unknown.
    """
    known = sorted({place[2] for line in benchmark.lines for place in line.figures})
    wrong = [name for name in (settings.metric,) if name not in known]
    if settings.metrics != TABLE_METRICS:  # the default's are shown as far as a file has them
        wrong += [name for name in settings.metrics if name not in known]
    if wrong or not set(settings.metrics) & set(known):
        raise ValueError(
            f"{benchmark.log}.csv has no {(wrong or list(settings.metrics))[0]!r}. It has: {', '.join(known)}."
        )
    names = {name for line in benchmark.lines for name in (line.label, line.model)}
    if settings.against not in (None, ALL_PAIRS, *names):
        raise ValueError(
            f"`--against` names {settings.against!r}, which {benchmark.log}.csv does not have. It has: "
            f"{', '.join(sorted(names))}."
        )


def _write(benchmark: Benchmark, text: str, settings: ReportSettings, say: Callable[[str], None]) -> None:
    """Write a benchmark's tables and, where matplotlib is installed, its plot."""
    from genrec.evaluation.benchmark_plots import plot_benchmark

    assert settings.output is not None
    folder = Path(settings.output)
    for suffix, content in (("md", text), ("tex", latex_tables(benchmark, settings.metrics))):
        with write_atomically(folder / f"{benchmark.log}.{suffix}") as temporary:
            temporary.write_text(content + "\n", encoding="utf-8")
        say(f"[report] {folder / f'{benchmark.log}.{suffix}'}")
    try:
        say(f"[report] {plot_benchmark(benchmark, folder / f'{benchmark.log}.png', settings.metric)}")
    except ImportError as error:
        say(f"[report] no plot: {error}")
