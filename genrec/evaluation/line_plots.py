"""Lines in panels, one line per model or protocol: pictures of studies. They need the extra `plots` (matplotlib)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from genrec.evaluation.plots import COLORS, MARKERS, _figure, _save, _tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_MARKERS = 8


class Line(NamedTuple):
    """One line.

    Args:
        places: Where its points stand, rising.
        values: How high; NaN breaks the line.
    """

    places: Sequence[float]
    values: Sequence[float]


def plot_lines(
    panels: Mapping[str, Mapping[str, Line]],
    path: str | Path,
    x_label: str,
    ticks: Sequence[str] | None = None,
) -> Path:
    """Draw named lines in named panels side by side, with one legend. Return the PNG's path.

    Args:
        panels: Title -> name of a line -> line. A name has the same color in all panels.
        path: Where to write the PNG.
        x_label: What the places are.
        ticks: Names of the places 0, 1, ...; None writes whole numbers.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If there is no line.
    """
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    if not names:
        raise ValueError("There is no line to draw. Give at least one panel with a line.")
    figure = _figure(width=4.8 * len(panels), height=4.2)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, lines) in zip(axes, panels.items(), strict=True):
        for name, line in lines.items():
            _draw(axis, name, names.index(name), line)
        axis.set_title(title, loc="left", fontsize=11)
        axis.set_ylim(bottom=0)
        if ticks is not None:
            axis.set_xticks(range(len(ticks)), ticks, rotation=30, ha="right")
        else:
            axis.xaxis.get_major_locator().set_params(integer=True)
        _tidy(axis)
    drawn = {name: handle for axis in axes for handle, name in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.supxlabel(x_label, fontsize=10)
    figure.legend(drawn.values(), drawn, loc="outside upper center", ncols=min(len(drawn), 4), frameon=False)
    return _save(figure, path)


def _draw(axis: "Axes", name: str, number: int, line: Line) -> None:
    axis.plot(
        list(line.places),
        list(line.values),
        color=COLORS[number % len(COLORS)],
        marker=MARKERS[number % len(MARKERS)],
        markevery=max(1, len(line.places) // MAX_MARKERS),
        markersize=5,
        linewidth=1.5,
        linestyle="-" if number < len(COLORS) else "--",
        label=name,
    )
