"""Tables of benchmark files: models by metrics, the mean over seeds with an interval, as Markdown and as LaTeX.

A cell is filled only if all its seeds were run, or as many as were asked for: a mean over fewer is `pending`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from genrec.evaluation.benchmark_csv import CsvRow, read_benchmark_csv
from genrec.evaluation.protocols import MERGED
from genrec.evaluation.tables import RULES, UPPER_BOUND, ordered_models
from genrec.presets import recipe_source

PENDING = "pending"
PUBLISHED = "published"  # the seed and configuration of rows that a paper printed
LATEX_SPECIAL = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}

Place = tuple[str, str, str]  # protocol, behavior, metric


@dataclass(frozen=True)
class Cell:
    """One figure over seeds.

    Args:
        mean: Mean over the seeds.
        low: The lowest end of the seeds' intervals; None where they have none.
        high: The highest end.
        num_seeds: How many seeds it has, where these are not all.
    """

    mean: float
    low: float | None
    high: float | None
    num_seeds: int | None = None


@dataclass(frozen=True)
class Line:
    """One model of a table, as one configuration measured it.

    Args:
        label: Its name in the table: the model's, with the configuration where the model has several.
        model: The model's short name.
        config: The configuration's name.
        figures: Place -> seed -> row of the file.
    """

    label: str
    model: str
    config: str
    figures: dict[Place, dict[int, CsvRow]]

    @property
    def is_ours(self) -> bool:
        """Whether it was run here; else a paper printed it, as one figure without seeds."""
        return self.config != PUBLISHED

    @property
    def seeds(self) -> list[int]:
        """All seeds it has a figure of, none if a paper printed it."""
        return sorted({seed for rows in self.figures.values() for seed in rows}) if self.is_ours else []


@dataclass(frozen=True)
class Benchmark:
    """The figures of one log.

    Args:
        log: The log's name, which is the file's.
        lines: One per model and configuration; models first, then rules, then the upper bound.
        seeds: The seeds of a figure.
        min_seeds: How many of them a figure needs; None means all.
    """

    log: str
    lines: list[Line]
    seeds: list[int]
    min_seeds: int | None = None

    def places(self, metrics: Sequence[str]) -> dict[tuple[str, str], list[str]]:
        """Return for each protocol and behavior those of the metrics that some model has.

        Behaviors stand in the order of the file, which is that of the ladder, after `merged`.
        """
        known = dict.fromkeys(place for line in self.lines for place in line.figures)
        groups = sorted(dict.fromkeys(place[:2] for place in known), key=lambda group: (group[0], group[1] != MERGED))
        found = {group: [metric for metric in metrics if (*group, metric) in known] for group in groups}
        return {group: names for group, names in found.items() if names}

    def cell(self, line: Line, place: Place) -> Cell | None:
        """Return a figure over the seeds, None if too many are missing.

        A rule that was run with some seeds only counts for all, if the log is the same for every seed: a rule has
        nothing that is drawn. What a paper printed stands for itself.
        """
        rows = line.figures.get(place, {})
        found = [seed for seed in self.seeds if seed in rows or self._counts_for_all(line, place)]
        needed = len(self.seeds) if self.min_seeds is None else min(self.min_seeds, len(self.seeds))
        if not rows or len(found) < needed:
            return None
        chosen = [rows[seed] for seed in found if seed in rows] or list(rows.values())
        ends = [(row["low"], row["high"]) for row in chosen if row["low"]]
        return Cell(
            mean=sum(float(row["value"]) for row in chosen) / len(chosen),
            low=min(float(low) for low, _ in ends) if ends else None,
            high=max(float(high) for _, high in ends) if ends else None,
            num_seeds=len(found) if len(found) < len(self.seeds) else None,
        )

    def shared_seeds(self, lines: Sequence[Line], place: Place) -> list[int]:
        """Return the seeds with which these lines can be compared: those with which each that is drawn was run.

        Where nothing is drawn, as between two rules, one seed stands for all: one measurement must not count as many.
        """
        drawn = [line for line in lines if not self._counts_for_all(line, place)]
        seeds = [seed for seed in self.seeds if all(seed in line.figures.get(place, {}) for line in drawn)]
        return seeds if drawn else seeds[:1]

    def target(self, protocol: str) -> str | None:
        """Return the strongest behavior of the log's ladder, which is the last of the fullest line; None if none is."""
        ladders = [
            list(dict.fromkeys(place[1] for place in line.figures if place[0] == protocol and place[1] != MERGED))
            for line in self.lines
            if line.is_ours
        ]
        return next(reversed(max(ladders, key=len, default=[])), None)

    def are_drawn(self, lines: Sequence[Line], place: Place) -> bool:
        """Whether another seed could give one of these lines another figure."""
        return not all(self._counts_for_all(line, place) for line in lines)

    def _counts_for_all(self, line: Line, place: Place) -> bool:
        """Whether any of its figures stands for every seed."""
        is_one_for_all = not line.is_ours or (line.model in RULES and self._is_one_log(place))
        return is_one_for_all and bool(line.figures.get(place))

    def missing(self, metrics: Sequence[str]) -> list[tuple[Line, int]]:
        """Return each line and seed of which a figure is missing that another line has."""
        places = [(*group, metric) for group, names in self.places(metrics).items() for metric in names]
        found: dict[tuple[int, int], tuple[Line, int]] = {}
        for number, line in enumerate(self.lines):
            for place in places if line.is_ours else ():
                if self.cell(line, place) is None:
                    absent = [seed for seed in self.seeds if seed not in line.figures.get(place, {})]
                    found |= {(number, seed): (line, seed) for seed in absent}
        return list(found.values())

    def _is_one_log(self, place: Place) -> bool:
        """Whether the models were asked equally often with every seed, so that the seed does not make the log."""
        counts = [
            {row["records"] for row in line.figures.get(place, {}).values()} for line in self.lines if line.is_ours
        ]
        return all(len(different) <= 1 for different in counts)


def recipe_of(config: str) -> str:
    """Return the recipe that a configuration belongs to; those of one recipe are comparable.

    >>> recipe_of("deskdrop_gamer-small"), recipe_of("market")
    ('deskdrop', 'market')
    """
    return config.partition("_")[0]


def read_benchmark(
    path: str | Path,
    *,
    seeds: Sequence[int] | None = None,
    models: Sequence[str] | None = None,
    min_seeds: int | None = None,
) -> Benchmark:
    """Read a benchmark file; rows over several seeds (`all`) are left out, those of papers (`published`) kept apart.

    Args:
        path: The file, `<log>.csv`.
        seeds: The seeds of every figure; None means all that the file has.
        models: Only these models, in this order, those without a row too; None means all that the file has.
        min_seeds: How many of the seeds a figure needs; None means all.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it has other columns, or no figure of a seed or a paper, or `min_seeds` is below 1.
    """
    if min_seeds is not None and min_seeds < 1:
        raise ValueError(f"`--min-seeds` takes a number of seeds from 1, got {min_seeds}.")
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no benchmark file {path}. Write it with `genrec bench RECIPE --csv {path}`.")
    rows = [row for row in read_benchmark_csv(path) if row["seed"].isdecimal() or row["seed"] == PUBLISHED]
    if not rows:
        raise ValueError(f"{path} has no figure of a single seed. Run `genrec bench RECIPE --csv {path}`.")
    lines = _lines(rows, models)
    found = sorted({seed for line in lines for seed in line.seeds})
    return Benchmark(Path(path).stem, lines, list(seeds) if seeds is not None else found, min_seeds)


def check_complete(benchmark: Benchmark, metrics: Sequence[str]) -> None:
    """Refuse a benchmark with a missing seed.

    Raises:
        ValueError: If one is missing, with the command that runs it.
    """
    missing = benchmark.missing(metrics)
    if missing:
        named = [f"{line.label} with seed {seed}" for line, seed in missing]
        line, seed = missing[0]
        raise ValueError(
            f"{benchmark.log}.csv lacks {', '.join(named)}. Run {bench_command(line.config, seed)} and so on, show "
            "such cells as `pending` with `--allow-pending`, or take means over fewer seeds with `--min-seeds`."
        )


def bench_command(config: str, seed: int) -> str:
    """Return the command that measures a configuration, with its recipe, which is not called as it is spelled.

    >>> bench_command("deskdrop_gamer-small", 2)
    '`genrec bench deskdrop+gamer-small --seeds 2`'
    >>> bench_command("shop_gamer", 0)
    "`genrec bench RECIPE --seeds 0` with the recipe called 'shop_gamer'"
    """
    source = recipe_source(config)
    called = f" with the recipe called {config!r}" if config and source is None else ""
    return f"`genrec bench {source or 'RECIPE'} --seeds {seed}`{called}"


def markdown_tables(benchmark: Benchmark, metrics: Sequence[str]) -> str:
    """Return one Markdown table per protocol and behavior, the best of each column in bold."""
    parts = []
    for (protocol, behavior), names in benchmark.places(metrics).items():
        header = [f"{benchmark.log}, {protocol}, {behavior}", *names]
        lines = [[line.label, *cells] for line, cells in _texts(benchmark, (protocol, behavior), names, "**{}**")]
        parts.append(markdown_table([header, *lines]))
    return "\n\n".join([*parts, _note(benchmark)])


def latex_tables(benchmark: Benchmark, metrics: Sequence[str]) -> str:
    """Return one LaTeX table (packages: booktabs) per protocol and behavior, the best of each column in bold."""
    parts = []
    for (protocol, behavior), names in benchmark.places(metrics).items():
        body = [
            " & ".join([latex_escape(line.label), *cells]) + r" \\"
            for line, cells in _texts(benchmark, (protocol, behavior), names, r"\textbf{{{}}}")
        ]
        caption = latex_escape(f"{benchmark.log}, {protocol}, {behavior}. {_note(benchmark)}")
        head = " & ".join(["model", *map(latex_escape, names)]) + r" \\"
        rows = [r"\toprule", head, r"\midrule", *body, r"\bottomrule"]
        columns = "l" + "r" * len(names)
        table = [rf"\begin{{tabular}}{{{columns}}}", *rows, r"\end{tabular}"]
        parts.append("\n".join([r"\begin{table}", *table, rf"\caption{{{caption}}}", r"\end{table}"]))
    return "\n\n".join(parts)


def latex_escape(text: str) -> str:
    r"""Return text that LaTeX prints as it stands.

    >>> print(latex_escape("retail_rocket & 95 %"))
    retail\_rocket \& 95 \%
    """
    return "".join(LATEX_SPECIAL.get(character, character) for character in text)


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """Return lines of cells as a Markdown table, the first line as its header."""
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in [escaped[0], ["---"] * len(escaped[0]), *escaped[1:]])


def _lines(rows: Iterable[CsvRow], models: Sequence[str] | None) -> list[Line]:
    """Return a line per model and configuration; of a rule or the bound, which each recipe measures, a single one.

    It is that of the recipe with the most models, beside which it stands, and there the fullest.
    """
    figures: dict[tuple[str, str], dict[Place, dict[int, CsvRow]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        place = row["protocol"], row["behavior"], row["metric"]
        seed = 0 if row["seed"] == PUBLISHED else int(row["seed"])
        figures[row["model"], row["config"]][place][seed] = row
    configs: dict[str, list[str]] = defaultdict(list)
    for model, config in figures:
        configs[model].append(config)
    models_of = Counter(recipe_of(config) for model, config in figures if model not in (*RULES, UPPER_BOUND))
    lines = []
    for model in models if models is not None else ordered_models(configs):
        found = configs.get(model, [""])  # a wanted model without rows is a line of pending cells
        printed, chosen = [name for name in found if name == PUBLISHED], [name for name in found if name != PUBLISHED]
        if chosen and model in (*RULES, UPPER_BOUND):
            sizes = {config: sum(map(len, figures[model, config].values())) for config in chosen}
            chosen = [max(chosen, key=lambda config: (models_of[recipe_of(config)], sizes[config]))]
        for config in [*chosen, *printed]:
            label = f"{model} ({config})" if len(chosen) > 1 or config == PUBLISHED else model
            lines.append(Line(label, model, config, dict(figures[model, config])))
    return lines


def _texts(
    benchmark: Benchmark, group: tuple[str, str], names: Sequence[str], bold: str
) -> list[tuple[Line, list[str]]]:
    """Return each line with the texts of its cells."""
    columns = []
    for metric in names:
        cells = [benchmark.cell(line, (*group, metric)) for line in benchmark.lines]
        best = _best([cell for cell, line in zip(cells, benchmark.lines, strict=True) if _competes(line)])
        columns.append(
            [
                _text(cell, bold if cell is not None and cell.mean == best and _competes(line) else "{}")
                for cell, line in zip(cells, benchmark.lines, strict=True)
            ]
        )
    return [(line, list(texts)) for line, texts in zip(benchmark.lines, zip(*columns, strict=True), strict=True)]


def _competes(line: Line) -> bool:
    """Whether it may be the best of a column: neither the bound nor a paper's figure, which had another split."""
    return line.is_ours and line.model != UPPER_BOUND


def _best(cells: Iterable[Cell | None]) -> float | None:
    values = [cell.mean for cell in cells if cell is not None]
    return max(values) if len(values) > 1 and max(values) > 0 else None  # nobody is best of nothing


def _text(cell: Cell | None, form: str) -> str:
    if cell is None:
        return PENDING
    interval = f" [{cell.low:.4f}, {cell.high:.4f}]" if cell.low is not None and cell.high is not None else ""
    return form.format(f"{cell.mean:.4f}") + interval + ("" if cell.num_seeds is None else f" ({cell.num_seeds})")


def _note(benchmark: Benchmark) -> str:
    seeds = ", ".join(map(str, benchmark.seeds))
    fewer = "" if benchmark.min_seeds is None else ", or over as many of them as stand in round brackets"
    printed = "" if all(line.is_ours for line in benchmark.lines) else " `published`: as the paper prints it."
    return (
        f"Mean over the seeds {seeds or 'to be run'}{fewer}; in brackets the outermost ends of the seeds' 95 % "
        f"bootstrap intervals over users; bold: best of its column.{printed}"
    )
