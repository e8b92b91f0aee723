"""Robustness as a table and a plot: GAMER, appendix B, table 7 and figure 4."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from genrec.evaluation.line_plots import Line, plot_lines
from genrec.evaluation.robustness import METRICS, SESSION_ITEMS, RobustnessRow


def robustness_table(
    rows: Sequence[RobustnessRow], behavior: str, metrics: Sequence[str] = METRICS, gain_of: str | None = None
) -> str:
    """Return a Markdown table, one line per perturbation and model: means over seeds, and what was lost.

    Args:
        rows: What `evaluate_robustness` returned, of any models, of one protocol; several rows of a cell are seeds.
        behavior: The asked behavior.
        metrics: The columns.
        gain_of: A model whose gain over the best of the others gets a line per perturbation, as in the paper.

    Raises:
        ValueError: If a model lacks a cell, or `gain_of` is not among several models.

    Example:
        >>> one = {"model": "m", "perturbation": "none", "behavior": "buy", "metric": "hit@1", "records": 7}
        >>> rows = [{**one, "value": 0.5, "dropped": 0.0}]
        >>> rows += [{**one, "value": 0.4, "dropped": 0.25, "perturbation": "drop-1"}]
        >>> print(robustness_table(rows, "buy", ["hit@1"]))
        | perturbation (interactions dropped) | model | HR@1 |
        |---|---|---|
        | none (0%) | m | 0.5000 |
        | drop-1 (25%) | m | 0.4000 (-20.0%) |
    """
    names = list(dict.fromkeys(row["perturbation"] for row in rows))
    models = list(dict.fromkeys(row["model"] for row in rows))
    if gain_of is not None and (gain_of not in models or len(models) < 2):
        raise ValueError(f"`gain_of` must be one of several models, got {gain_of!r} and the models {models}.")
    lines = [["perturbation (interactions dropped)", "model", *map(_title, metrics)], []]
    for name in names:
        dropped = next(row["dropped"] for row in rows if row["perturbation"] == name)
        for model in models:
            cells = [_cell(rows, model, name, names[0], behavior, metric) for metric in metrics]
            lines.append([f"{name} ({dropped:.0%})", model, *cells])
        if gain_of is not None:
            gains = [gain_over_best(rows, gain_of, name, behavior, metric) for metric in metrics]
            shown = ["-" if gain is None else f"{gain:+.1%}" for gain in gains]
            lines.append([name, f"gain of {gain_of}", *shown])
    return "\n".join(f"| {' | '.join(line)} |" if line else "|---" * len(lines[0]) + "|" for line in lines)


def gain_over_best(
    rows: Sequence[RobustnessRow], model: str, perturbation: str, behavior: str, metric: str
) -> float | None:
    """Return a model's gain over the best of the others under a perturbation, as a share; None if all others have 0.

    Raises:
        ValueError: If a cell is missing, or there is no other model.
    """
    others = [name for name in dict.fromkeys(row["model"] for row in rows) if name != model]
    if not others:
        raise ValueError(f"There is no model beside {model!r} that it could gain over. Add one.")
    best = max(mean_of(rows, other, perturbation, behavior, metric) for other in others)
    return mean_of(rows, model, perturbation, behavior, metric) / best - 1 if best > 0 else None


def mean_of(rows: Sequence[RobustnessRow], model: str, perturbation: str, behavior: str, metric: str) -> float:
    """Return one cell's mean over seeds.

    Raises:
        ValueError: If there is none.
    """
    key = (model, perturbation, behavior, metric)
    values = [
        row["value"] for row in rows if tuple(row[n] for n in ("model", "perturbation", "behavior", "metric")) == key
    ]
    if not values:
        raise ValueError(f"No figure of {model!r} under {perturbation!r} for {behavior!r}, {metric!r}. Evaluate it.")
    return float(np.mean(values))


def plot_robustness(
    rows: Sequence[RobustnessRow], path: str | Path, behavior: str, metrics: Sequence[str] = ("hit@10", "ndcg@10")
) -> Path:
    """Draw one panel per metric: each model's mean over seeds under every perturbation. Return the PNG's path.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If a cell is missing.
    """
    names = list(dict.fromkeys(row["perturbation"] for row in rows))
    models = list(dict.fromkeys(row["model"] for row in rows))
    panels = {
        _title(metric): {
            model: _line(names, [mean_of(rows, model, name, behavior, metric) for name in names]) for model in models
        }
        for metric in metrics
    }
    return plot_lines(panels, path, x_label=f"what test histories lack, asked for {behavior}", ticks=names)


def _line(names: Sequence[str], values: Sequence[float]) -> Line:
    """Return a line over the ratios, broken before the items of the session, which are no further ratio."""
    places, heights = [float(place) for place in range(len(names))], list(values)
    if SESSION_ITEMS in names[1:]:
        place = names.index(SESSION_ITEMS)
        places.insert(place, place - 0.5)
        heights.insert(place, float("nan"))
    return Line(places, heights)


def _cell(rows: Sequence[RobustnessRow], model: str, name: str, reference: str, behavior: str, metric: str) -> str:
    value, whole = (mean_of(rows, model, each, behavior, metric) for each in (name, reference))
    return f"{value:.4f}" if name == reference or whole == 0 else f"{value:.4f} ({value / whole - 1:+.1%})"


def _title(metric: str) -> str:
    return metric.replace("ndcg", "NDCG").replace("hit", "HR")
