"""Where a gain comes from, as bars: one per step of an ablation. Needs the extra `plots` (matplotlib)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from genrec.evaluation.plots import COLORS, GRAY, _figure, _label, _save, _tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REPEAT, FIRST_TIME = "repeat targets", "first-time targets"
BRANCH_ALPHA = 0.45


class GainBar(NamedTuple):
    """One step.

    Args:
        name: What stands under the bar.
        repeat: What targets that the user had met before add to the metric.
        first_time: What the other targets add to it; both parts sum to the metric.
        low: Lower end of the metric's interval.
        high: Its upper end.
        is_branch: Whether the step leads off the ladder, to something tried beside it; drawn pale.

    Example:
        >>> GainBar("+ copying", repeat=0.25, first_time=0.125, low=0.3, high=0.5).total
        0.375
    """

    name: str
    repeat: float
    first_time: float
    low: float
    high: float
    is_branch: bool = False

    @property
    def total(self) -> float:
        """The metric."""
        return self.repeat + self.first_time


def plot_gains(
    bars: Sequence[GainBar], path: str | Path, metric: str = "ndcg@10", best_rule: tuple[str, float] | None = None
) -> Path:
    """Draw one bar per step, its two parts on each other, with the interval of their sum. Return the PNG's path.

    Args:
        bars: The steps, from left to right.
        path: Where to write the PNG.
        metric: Which metric the bars show.
        best_rule: Name and value of a rule, drawn as a line across.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If there is no bar.
    """
    if not bars:
        raise ValueError("There is no bar to draw. Give at least one step.")
    figure = _figure(width=1.5 + 0.85 * max(len(bars), 5), height=4.6)
    axis = figure.subplots()
    _draw_bars(axis, bars)
    if best_rule is not None:
        name, value = best_rule
        axis.axhline(value, color=GRAY, linestyle="--", linewidth=1.3, label=f"best rule: {name}")
    axis.set_ylabel(f"{_label(metric)}, merged")
    axis.set_xticks(range(len(bars)), [bar.name for bar in bars], rotation=35, ha="right", rotation_mode="anchor")
    _tidy(axis)
    handles, labels = axis.get_legend_handles_labels()
    figure.supxlabel("lines on bars: bootstrap intervals; pale: tried beside the ladder", fontsize=9, color=GRAY)
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
    return _save(figure, path)


def _draw_bars(axis: "Axes", bars: Sequence[GainBar]) -> None:
    places = np.arange(len(bars))
    repeat, totals = np.array([bar.repeat for bar in bars]), np.array([bar.total for bar in bars])
    lower = axis.bar(places, repeat, width=0.65, color=COLORS[0], label=REPEAT)
    upper = axis.bar(places, totals - repeat, width=0.65, bottom=repeat, color=COLORS[4], label=FIRST_TIME)
    for bar, *patches in zip(bars, lower, upper, strict=True):
        for patch in patches:
            patch.set_alpha(BRANCH_ALPHA if bar.is_branch else 1.0)
    ends = np.maximum([totals - [bar.low for bar in bars], [bar.high for bar in bars] - totals], 0.0)
    axis.errorbar(places, totals, yerr=ends, fmt="none", ecolor="black", elinewidth=1.2, capsize=3)
