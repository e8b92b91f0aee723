"""A report as text: a table of models by behavior, and sentences that say what it shows, good or bad."""

from collections.abc import Iterable

from genrec.evaluation.comparison import compare
from genrec.evaluation.protocols import MERGED
from genrec.evaluation.report import EvaluationReport, Row

RULES = ("popularity", "trending", "recency", "recency-undone", "co-occurrence")
UPPER_BOUND = "upper-bound"
BEST_MARK = "*"


def report_table(
    report: EvaluationReport, metric: str = "ndcg@10", protocol: str | None = None, *, is_markdown: bool = False
) -> str:
    """Return one table per protocol: models down, behaviors across, the best of each column marked.

    Below each table stands, for every model that is no rule, whether it beats the best rule, with a paired interval
    where the report has the records, and its share of the upper bound if the report has one.

    Args:
        report: What to show.
        metric: Which metric.
        protocol: Only this protocol; None means all.
        is_markdown: Whether to write a Markdown table.

    Raises:
        ValueError: If the report has no row of the metric and protocol.
    """
    protocols = [protocol] if protocol is not None else report.protocols()
    return "\n\n".join(_protocol_table(report, metric, name, is_markdown) for name in protocols)


def verdicts(report: EvaluationReport, metric: str, protocol: str) -> list[str]:
    """Say of every model that is no rule how it stands to the best rule and to the upper bound."""
    merged = {row["model"]: row["value"] for row in report.select(metric=metric, protocol=protocol, behavior=MERGED)}
    rules = [model for model in merged if model in RULES]
    models = [model for model in merged if model not in (*RULES, UPPER_BOUND)]
    sentences = []
    for model in models:
        if rules:
            sentences.append(_against_rule(report, metric, protocol, model, max(rules, key=lambda rule: merged[rule])))
        if merged.get(UPPER_BOUND):
            share = merged[model] / merged[UPPER_BOUND]
            sentences.append(f"{model} reaches {share:.0%} of the upper bound ({merged[UPPER_BOUND]:.4f}).")
    return sentences


def _protocol_table(report: EvaluationReport, metric: str, protocol: str, is_markdown: bool) -> str:
    rows = report.select(metric=metric, protocol=protocol)
    if not rows:
        known = list(dict.fromkeys(row["metric"] for row in report.rows))
        raise ValueError(f"The report has no {metric!r} under {protocol!r}. It has the metrics {', '.join(known)}.")
    cells = {(row["model"], row["behavior"]): row for row in rows}
    behaviors = sorted(dict.fromkeys(row["behavior"] for row in rows), key=lambda name: name != MERGED)
    models = ordered_models(row["model"] for row in rows)
    best = {behavior: _best_value(rows, behavior) for behavior in behaviors}
    lines = [
        [model, *(_cell(cells.get((model, behavior)), behavior, best[behavior]) for behavior in behaviors)]
        for model in models
    ]
    header = ["model", *(f"{name} (n={_num_records(rows, name)})" for name in behaviors)]
    title = f"{metric}, {protocol} ({BEST_MARK} best of its column)"
    text = (_markdown if is_markdown else _aligned)([header, *lines])
    return "\n".join([title, *([""] if is_markdown else []), text, *_paragraph(report, metric, protocol, is_markdown)])


def _paragraph(report: EvaluationReport, metric: str, protocol: str, is_markdown: bool) -> list[str]:
    sentences = verdicts(report, metric, protocol)
    return ["", *(f"- {sentence}" for sentence in sentences)] if is_markdown and sentences else sentences


def ordered_models(names: Iterable[str]) -> list[str]:
    """Return each name once: models first, then the rules, then the upper bound."""
    return sorted(dict.fromkeys(names), key=lambda name: (name == UPPER_BOUND, name in RULES))


def _best_value(rows: list[Row], behavior: str) -> float | None:
    values = [row["value"] for row in rows if row["behavior"] == behavior and row["model"] != UPPER_BOUND]
    return max(values) if len(values) > 1 and max(values) > 0 else None  # nobody is best of nothing


def _num_records(rows: list[Row], behavior: str) -> int:
    return max(row["records"] for row in rows if row["behavior"] == behavior)


def _cell(row: Row | None, behavior: str, best: float | None) -> str:
    if row is None:
        return "-"
    interval = f" [{row['low']:.4f}, {row['high']:.4f}]" if behavior == MERGED and row["low"] is not None else ""
    is_best = best is not None and row["value"] == best and row["model"] != UPPER_BOUND
    return f"{row['value']:.4f}{interval}{' ' + BEST_MARK if is_best else ''}"


def _aligned(lines: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _markdown(lines: list[list[str]]) -> str:
    rule = ["---"] * len(lines[0])
    escaped = [[cell.replace("|", "\\|").replace(BEST_MARK, f"\\{BEST_MARK}") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in [escaped[0], rule, *escaped[1:]])


def _against_rule(report: EvaluationReport, metric: str, protocol: str, model: str, rule: str) -> str:
    value, bar = (report.value(metric, MERGED, name, protocol) for name in (model, rule))
    kept = {(records.model, records.protocol) for records in report.records}
    relative = f" ({value / bar - 1:+.1%})" if bar > 0 else ""
    evidence, is_certain = f"difference {value - bar:+.4f}{relative}, no records to test it with", True
    if {(model, protocol), (rule, protocol)} <= kept:
        result = compare(report, report, metric, models=(model, rule), protocol=protocol)
        is_certain = result.low > 0
        evidence = (
            f"difference {value - bar:+.4f}{relative} [{result.low:+.4f}, {result.high:+.4f}], p = {result.p:.3f}"
        )
    verb = "does NOT beat" if value <= bar else "beats" if is_certain else "is above, but within noise of,"
    return f"{model} ({value:.4f}) {verb} the best rule, {rule} ({bar:.4f}): {evidence}."
