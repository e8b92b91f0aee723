"""Two pictures: metrics by behavior with intervals, and training curves. They need the extra `plots` (matplotlib).

Colors are those of Okabe and Ito, which color-blind readers can tell apart; models differ in their marker too.
"""

import importlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genrec.evaluation.protocols import MERGED
from genrec.evaluation.report import EvaluationReport, Row
from genrec.evaluation.tables import RULES, UPPER_BOUND, ordered_models
from genrec.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
GRAY = "#666666"
MARKERS = "osD^vP"
GROUP_WIDTH = 0.7

Curve = tuple[list[float], list[float]]


def plot_metrics(
    report: EvaluationReport, path: str | Path, metric: str = "ndcg@10", protocols: Sequence[str] | None = None
) -> Path:
    """Draw one panel per protocol: each model's metric for each behavior, with its interval. Return the PNG's path.

    Args:
        report: What to draw.
        path: Where to write the PNG.
        metric: Which metric.
        protocols: Which protocols; None means all of the report.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If the report has no row of the metric.
    """
    panels = {name: report.select(metric=metric, protocol=name) for name in protocols or report.protocols()}
    panels = {name: rows for name, rows in panels.items() if rows}
    if not panels:
        known = list(dict.fromkeys(row["metric"] for row in report.rows))
        raise ValueError(f"The report has no row of {metric!r} to draw. It has the metrics {', '.join(known)}.")
    figure = _figure(width=9, height=3.6 * len(panels) + 0.5)
    axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    models = ordered_models(row["model"] for rows in panels.values() for row in rows)
    for axis, (protocol, rows) in zip(axes, panels.items(), strict=True):
        _draw_protocol(axis, rows, models)
        axis.set_title(protocol, loc="left", fontsize=11)
        axis.set_ylabel(_label(metric))
    handles, labels = axes[0].get_legend_handles_labels()
    figure.supxlabel("bars: bootstrap intervals over users", fontsize=9, color=GRAY)
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(models), 6), frameon=False)
    return _save(figure, path)


def plot_training_curves(
    metrics: str | Path | Iterable[Mapping[str, Any]], path: str | Path, ranking_metric: str = "ndcg@10"
) -> Path:
    """Draw training and validation loss, and the validation's ranking metric, against the epoch. Return the PNG's path.

    Args:
        metrics: A `metrics.jsonl` file or its lines as dictionaries, with `epoch` (or `step`) and any of `loss`,
            `eval_loss` and a key that ends with the ranking metric, such as `eval_ndcg@10`.
        path: Where to write the PNG.
        ranking_metric: Which ranking metric to draw, if it was logged.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If no line has a loss or the ranking metric, or a line is not JSON.
    """
    lines = read_metrics(metrics) if isinstance(metrics, (str, Path)) else list(metrics)
    x_name = "epoch" if any("epoch" in line for line in lines) else "step"
    ranking_key = next((key for line in lines for key in line if key.endswith(ranking_metric)), ranking_metric)
    curves = {key: _curve(lines, x_name, key) for key in ("loss", "eval_loss", ranking_key)}
    has_loss, has_ranking = bool(curves["loss"][0] or curves["eval_loss"][0]), bool(curves[ranking_key][0])
    if not has_loss and not has_ranking:
        raise ValueError(
            f"None of the {len(lines)} lines has `loss`, `eval_loss` or `{ranking_metric}` beside `epoch` or `step`, "
            "so there is nothing to draw."
        )
    figure = _figure(width=8, height=2.9 * (has_loss + has_ranking))
    axes = list(figure.subplots(has_loss + has_ranking, 1, sharex=True, squeeze=False)[:, 0])
    axes[-1].set_xlabel(x_name)
    if has_loss:
        _draw_losses(axes[0], curves["loss"], curves["eval_loss"])
    if has_ranking:
        _draw_ranking(axes[-1], curves[ranking_key], ranking_metric, x_name)
    return _save(figure, path)


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Read a JSON-lines file of logged metrics.

    Raises:
        ValueError: If a line is not JSON; the line's number is named.
    """
    lines = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number} is not JSON ({error}). Delete that line.") from error
    return lines


def _figure(width: float, height: float) -> "Figure":
    try:
        figure_module = importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise ImportError("Plots need matplotlib, which is not installed. Run: pip install 'genrec[plots]'") from error
    return figure_module.Figure(figsize=(width, height), layout="constrained")


def _save(figure: "Figure", path: str | Path) -> Path:
    with write_atomically(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    return Path(path)


def _label(metric: str) -> str:
    return metric.replace("ndcg", "NDCG").replace("mrr", "MRR")


def _draw_protocol(axis: "Axes", rows: list[Row], models: list[str]) -> None:
    behaviors = sorted(dict.fromkeys(row["behavior"] for row in rows), key=lambda name: name != MERGED)
    cells = {(row["model"], row["behavior"]): row for row in rows}
    for number, model in enumerate(models):
        shift = ((number + 0.5) / len(models) - 0.5) * GROUP_WIDTH
        drawn = [(place + shift, cells[model, name]) for place, name in enumerate(behaviors) if (model, name) in cells]
        _draw_model(axis, model, number, drawn)
    counts = {name: max(row["records"] for row in rows if row["behavior"] == name) for name in behaviors}
    axis.set_xticks(range(len(behaviors)), [f"{name}\nn = {counts[name]:,}" for name in behaviors])
    axis.set_xlim(-0.5, len(behaviors) - 0.5)
    axis.set_ylim(bottom=-0.02 * axis.get_ylim()[1])  # a marker at zero stays whole
    for place in range(len(behaviors) - 1):
        axis.axvline(place + 0.5, color="#dddddd", linewidth=0.8)
    _tidy(axis)


def _draw_model(axis: "Axes", model: str, number: int, drawn: list[tuple[float, Row]]) -> None:
    values = np.array([row["value"] for _, row in drawn])
    low, high = (
        np.array([row["value"] if row[end] is None else row[end] for _, row in drawn]) for end in ("low", "high")
    )
    is_reference = model in RULES or model == UPPER_BOUND
    color = GRAY if model == UPPER_BOUND else COLORS[number % len(COLORS)]
    axis.errorbar(
        [place for place, _ in drawn],
        values,
        yerr=np.maximum([values - low, high - values], 0.0),
        fmt="_" if model == UPPER_BOUND else MARKERS[number % len(MARKERS)],
        color=color,
        markerfacecolor="white" if is_reference else color,
        markersize=10 if model == UPPER_BOUND else 6,
        elinewidth=1.4,
        capsize=3,
        label=model,
    )


def _draw_losses(axis: "Axes", training: Curve, validation: Curve) -> None:
    if training[0]:
        axis.plot(*training, color=COLORS[0], linewidth=1.5, label="training")
    if validation[0]:
        axis.plot(*validation, color=COLORS[1], linewidth=1.5, marker="o", markersize=4, label="validation")
    axis.set_ylabel("loss (nats per token)")
    axis.legend(frameon=False)
    _tidy(axis)


def _draw_ranking(axis: "Axes", curve: Curve, metric: str, x_name: str) -> None:
    places, values = curve
    best = int(np.argmax(values))
    axis.plot(places, values, color=COLORS[2], linewidth=1.5, marker="o", markersize=4, label="validation")
    axis.axvline(places[best], color=GRAY, linestyle=":", linewidth=1.2)
    note = ", still improving at the end" if best == len(values) - 1 and len(values) > 1 else ""
    axis.set_title(f"best {values[best]:.4f} at {x_name} {places[best]:g}{note}", loc="left", fontsize=10)
    axis.set_ylabel(f"validation {_label(metric)}")
    axis.set_ylim(bottom=0)
    _tidy(axis)


def _curve(lines: Iterable[Mapping[str, Any]], x_name: str, key: str) -> Curve:
    points = [(float(line[x_name]), float(line[key])) for line in lines if x_name in line and key in line]
    return [x for x, _ in points], [y for _, y in points]


def _tidy(axis: "Axes") -> None:
    axis.grid(axis="y", color="#e5e5e5", linewidth=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
