"""A picture of a benchmark file: models from best to worst, a column per behavior, a row of panels per protocol.

Needs the extra `plots` (matplotlib).
"""

from pathlib import Path
from typing import TYPE_CHECKING

from genrec.evaluation.benchmark_tables import Benchmark, Cell, Line
from genrec.evaluation.plots import COLORS, GRAY, _figure, _label, _save
from genrec.evaluation.protocols import MERGED
from genrec.evaluation.tables import RULES, UPPER_BOUND

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINE_HEIGHT, PANEL_WIDTH = 0.24, 1.7  # inches

Cells = dict[str, dict[str, Cell]]  # behavior -> label -> figure


def plot_benchmark(benchmark: Benchmark, path: str | Path, metric: str = "ndcg@10") -> Path:
    """Draw every complete cell of a metric: mean over seeds, outermost interval ends. Return the PNG's path.

    Models are filled points and rules hollow ones; what a paper printed is left out.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If no model has the metric with enough of its seeds.
    """
    panels = _panels(benchmark, metric)
    if not panels:
        raise ValueError(f"{benchmark.log}.csv has no {metric!r} with all its seeds, so there is nothing to draw.")
    ranked = {protocol: _ranked(cells) for protocol, cells in panels.items()}
    width = 1.8 + PANEL_WIDTH * max(map(len, panels.values()))
    heights = [1.0 + LINE_HEIGHT * len(labels) for labels in ranked.values()]
    figure = _figure(width, sum(heights) + 0.3)
    rows = figure.subfigures(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    hollow = {line.label for line in benchmark.lines if line.model in (*RULES, UPPER_BOUND)}
    for row, (protocol, cells) in zip(rows, panels.items(), strict=True):
        row.suptitle(f"{benchmark.log}, {protocol}", x=0.01, ha="left", fontsize=11)
        axes = row.subplots(1, len(cells), sharey=True, squeeze=False)[0]
        for axis, (behavior, found) in zip(axes, cells.items(), strict=True):
            _draw_panel(axis, found, ranked[protocol], hollow)
            records = _records(benchmark.lines, (protocol, behavior, metric))
            axis.set_title(f"{behavior}\nn = {records:,}", fontsize=9)
    figure.supxlabel(f"{_label(metric)}; bars: bootstrap intervals over users", fontsize=9, color=GRAY)
    return _save(figure, path)


def _panels(benchmark: Benchmark, metric: str) -> dict[str, Cells]:
    """Return by protocol the cells to draw."""
    panels: dict[str, Cells] = {}
    for protocol, behavior in benchmark.places([metric]):
        place = protocol, behavior, metric
        found = {line.label: benchmark.cell(line, place) for line in benchmark.lines if line.is_ours}
        drawn = {label: cell for label, cell in found.items() if cell is not None}
        if drawn:
            panels.setdefault(protocol, {})[behavior] = drawn
    return panels


def _ranked(cells: Cells) -> list[str]:
    """Return all labels, the best first, judged by the first behavior that has each: `merged`, where there is one."""
    values: dict[str, float] = {}
    for found in sorted(cells.items(), key=lambda entry: entry[0] != MERGED):
        for label, cell in found[1].items():
            values.setdefault(label, cell.mean)
    return sorted(values, key=lambda label: -values[label])


def _records(lines: list[Line], place: tuple[str, str, str]) -> int:
    return max(int(row["records"]) for line in lines if line.is_ours for row in line.figures.get(place, {}).values())


def _draw_panel(axis: "Axes", cells: dict[str, Cell], labels: list[str], hollow: set[str]) -> None:
    for height, label in enumerate(reversed(labels)):
        cell = cells.get(label)
        if cell is None:
            continue
        low, high = (cell.mean if end is None else end for end in (cell.low, cell.high))
        color = GRAY if label in hollow else COLORS[0]
        axis.errorbar(
            [cell.mean],
            [height],
            xerr=[[max(cell.mean - low, 0.0)], [max(high - cell.mean, 0.0)]],
            fmt="o",
            color=color,
            markerfacecolor="white" if label in hollow else color,
            markersize=5,
            elinewidth=1.3,
            capsize=2,
        )
    axis.set_yticks(range(len(labels)), labels[::-1], fontsize=8)
    axis.set_ylim(-0.6, len(labels) - 0.4)
    axis.set_xlim(left=-0.02 * axis.get_xlim()[1])  # a point at zero stays whole
    axis.tick_params(axis="x", labelsize=8)
    axis.tick_params(axis="y", length=0)
    axis.grid(color="#e5e5e5", linewidth=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
