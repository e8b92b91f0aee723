"""The ablation ladder as a Markdown table and as a plot."""

import math
from collections.abc import Sequence
from pathlib import Path

from benchmarks.quality.ladder_figures import BestRule, RungFigures
from benchmarks.quality.ladder_search import REPEATS
from genrec.evaluation.benchmark_tables import markdown_table
from genrec.evaluation.comparison import Comparison
from genrec.evaluation.gain_plots import GainBar, plot_gains


def ladder_table(figures: Sequence[RungFigures], rule: BestRule | None) -> str:
    """Return the table, one line per rung, with what its columns mean and how the ladder stands to the best rule."""
    first, titles = figures[0], {each.name: each.title for each in figures}
    metric = first.metric.upper()
    header = ["rung", metric, "over", "gain", "repeat", "first-time", "training s", "users/s", "relative"]
    lines = [_line(each, titles) for each in figures]
    seeds = "1 seed" if first.merged.num_seeds == 1 else f"{first.merged.num_seeds} seeds"
    notes = (
        f"Merged {metric} of {first.merged.records:,} records, {seeds}, 95 % intervals in brackets, `*` where a gain's "
        f"leaves out 0. Repeat and first-time: {metric} on these targets alone. Search of {first.speed.users} users "
        f"on {first.speed.device} with 1 thread, median of {REPEATS}, relative to {first.title}."
    )
    against = [] if rule is None else [_against_rule(rule, titles, metric)]
    return "\n\n".join([markdown_table([header, *lines]), notes, *against])


def _line(each: RungFigures, titles: dict[str, str]) -> list[str]:
    gain = ["-", "-"] if each.gain is None or each.against is None else [titles[each.against], _gain(each.gain)]
    values = [_value(each.repeat), _value(each.first_time), f"{each.train_seconds:,.0f}"]
    speeds = [f"{each.speed.users_per_second:,.0f}", f"{each.speed.relative:.2f}"]
    merged = f"{each.merged.difference:.4f} [{each.merged.low:.4f}, {each.merged.high:.4f}]"
    return [f"branch: {each.title}" if each.is_branch else each.title, merged, *gain, *values, *speeds]


def _gain(gain: Comparison) -> str:
    mark = "*" if gain.low > 0 or gain.high < 0 else ""
    return f"{gain.difference:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]{mark}"


def _value(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def _against_rule(rule: BestRule, titles: dict[str, str], metric: str) -> str:
    return (
        f"Best rule: {rule.name}, {metric} {rule.value:.4f}. {titles[rule.rung]}: {_gain(rule.gain)} over it "
        f"({rule.gain.relative:+.1%})."
    )


def plot_ladder(figures: Sequence[RungFigures], path: Path, rule: BestRule | None) -> Path:
    """Draw the rungs as bars and the best rule as a line. Return the PNG's path."""
    bars = [
        GainBar(each.title, each.repeat_part, each.first_time_part, each.merged.low, each.merged.high, each.is_branch)
        for each in figures
    ]
    return plot_gains(bars, path, figures[0].metric, None if rule is None else (rule.name, rule.value))
