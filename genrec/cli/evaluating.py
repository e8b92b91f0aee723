"""The evaluation stage: the model, the rules beside it and, for a market, the best that is possible."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from genrec.cli.build import market_of
from genrec.cli.provenance import provenance
from genrec.cli.recipe import UPPER_BOUND
from genrec.data.histories import asked_at
from genrec.evaluation import EvaluationReport, evaluate
from genrec.evaluation.benchmark_csv import update_benchmark_csv
from genrec.evaluation.metrics import default_metrics
from genrec.evaluation.protocols import SLICES
from genrec.files import read_json, write_atomically, write_json
from genrec.hub import HEADLINE_METRICS, TRAINING_REPORT, write_model_card
from genrec.recommender import (
    CooccurrenceRecommender,
    PopularityRecommender,
    RecencyRecommender,
    Recommender,
    RuleRecommender,
    ScoringRecommender,
    TrendingRecommender,
)
from genrec.recommender import load_recommender as load_any_recommender
from genrec.training.progress import METRICS_FILE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from genrec.cli.stages import Run
    from genrec.data import PreparedDataset

RULES: "dict[str, Callable[[], RuleRecommender]]" = {
    "popularity": PopularityRecommender,
    "trending": TrendingRecommender,
    "recency": RecencyRecommender,
    "recency-undone": lambda: RecencyRecommender(skip_done=True, order="level"),
    "co-occurrence": CooccurrenceRecommender,
}
TUNED_SETTINGS: dict[str, tuple[str, ...]] = {"recency": (), "recency-undone": ("order",)}  # of the others, all
NEEDS_TIMES = ("trending",)


def evaluate_run(run: "Run") -> dict[str, Any]:
    """Evaluate every split's checkpoint and write the report, its tables and plots, and the model cards.

    Returns:
        What the stage's stamp keeps: merged NDCG of the model on the primary split.
    """
    started = time.perf_counter()
    report = EvaluationReport([])
    for protocol in run.recipe.evaluation.protocols:
        split_report = evaluate_split(run, protocol)
        _complete_checkpoint(run, protocol, split_report)
        report = report.merge(split_report)
    facts = {"name": run.recipe.name, "seed": run.recipe.seed, "seconds": round(time.perf_counter() - started, 1)}
    report = report.with_metadata(**facts, **provenance())
    report.save(run.folder.report)
    with write_atomically(run.folder.report_text) as temporary:
        temporary.write_text(report.table(metric_of(run), is_markdown=True) + "\n", encoding="utf-8")
    write_plots(run, report)
    metric, primary = metric_of(run), run.folder.primary
    return {
        f"merged_{metric}": report.value(metric, model=run.recipe.evaluation.model_name, protocol=primary),
        "figures": len(report.rows),
    }


def metric_of(run: "Run") -> str:
    """Return the metric that tables show: NDCG at the length of the lists."""
    return f"ndcg@{run.recipe.evaluation.k}"


def evaluate_split(run: "Run", protocol: str) -> EvaluationReport:
    """Return the figures of all recommenders on one split's test queries."""
    settings = run.recipe.evaluation
    split = run.prepared.split(protocol)
    report = EvaluationReport([])
    num_later = asked_at(split.test.histories).num_later
    if num_later:
        run.say(f"  {protocol}: left out {num_later:,} interactions that are not before their query; check the clocks")
    for name, recommender in recommenders(run, protocol).items():
        started = time.perf_counter()
        figures = evaluate(
            recommender,
            split.test,
            name=name,
            protocol=protocol,
            k=settings.k,
            train=split.train,
            num_bootstrap=settings.num_bootstrap,
            seed=run.recipe.seed,
            progress=name == settings.model_name and sys.stderr.isatty(),
        )
        report = report.merge(figures)
        merged = figures.value(metric_of(run), model=name)
        run.say(f"  {protocol}: {name}, merged {metric_of(run)} {merged:.4f}, {time.perf_counter() - started:.1f} s")
    return report.with_metadata(**{f"num_later_{protocol}": num_later} if num_later else {})


def recommenders(run: "Run", protocol: str) -> dict[str, Recommender]:
    """Return what is compared on a split: the model, the rules tuned on validation, and a market's upper bound."""
    settings, prepared = run.recipe.evaluation, run.prepared
    compared: dict[str, Recommender] = {settings.model_name: load_recommender(run, protocol)}
    for name in settings.baselines:
        if name in NEEDS_TIMES and not prepared.has_times:
            run.say(f"  {protocol}: no {name}, because the log has no times")
        else:
            compared[name] = fitted_rule(name, prepared, protocol, settings.k)
    if run.recipe.market is not None:
        market = market_of(run.recipe)
        compared[UPPER_BOUND] = ScoringRecommender(market.next_item_scores, prepared.catalog.item_ids, prepared.ladder)
    return compared


def fitted_rule(name: str, prepared: "PreparedDataset", protocol: str, k: int = 10) -> RuleRecommender:
    """Return a rule of `RULES` fitted on a split's training part and tuned on its validation queries.

    What is trending is counted in the whole log: at any query, the events before it, as a live service would know.
    """
    split, rule = prepared.split(protocol), RULES[name]()
    rule = rule.fit(split.train, prepared.events()) if isinstance(rule, TrendingRecommender) else rule.fit(split.train)
    is_tuned = len(split.validation) > 0 and TUNED_SETTINGS.get(name) != ()
    return rule.tune(split.validation, k=k, settings=TUNED_SETTINGS.get(name)) if is_tuned else rule


def load_recommender(run: "Run", protocol: str) -> Recommender:
    """Return a split's finished model, on the accelerator if there is one."""
    settings = run.recipe.evaluation
    return load_any_recommender(
        run.folder.checkpoint(protocol),
        num_beams=max(settings.num_beams, settings.k),
        batch_size=settings.batch_size,
        device="cuda" if torch.cuda.is_available() else "cpu",
    )


def _complete_checkpoint(run: "Run", protocol: str, report: EvaluationReport) -> None:
    """Add the figures to the checkpoint's training report, and fill its model card with them."""
    folder = run.folder.checkpoint(protocol)
    facts = read_json(folder / TRAINING_REPORT)
    write_json(folder / TRAINING_REPORT, {**facts, "results": report.rows})
    write_model_card(folder, license=run.recipe.hub.license if run.recipe.hub else None)


def write_plots(run: "Run", report: EvaluationReport) -> None:
    """Draw metrics by behavior and the training curves, where matplotlib is installed."""
    from genrec.evaluation.plots import plot_metrics, plot_training_curves

    folder = run.folder
    try:
        plot_metrics(report, folder.plots / "metrics.png", metric_of(run))
        for protocol in report.protocols():
            plot_training_curves(folder.training(protocol) / METRICS_FILE, folder.plots / f"{protocol}_training.png")
    except ImportError as error:
        run.say(f"  no plots: {error}")


def file_metrics(k: int) -> tuple[str, ...]:
    """Return which figures of a report go into files like `benchmarks/quality/`.

    >>> file_metrics(5)[:6]
    ('hit@1', 'hit@5', 'recall@1', 'recall@5', 'ndcg@5', 'ndcg@5/cold')
    """
    headline = [name for name in default_metrics(k) if name.partition("@")[0] in HEADLINE_METRICS]
    return (*(name for name in headline if name != "ndcg@1"), *(f"ndcg@{k}/{name}" for name in SLICES))


def write_figures(
    run: "Run",
    path: str | Path,
    measured: str,
    metrics: "Sequence[str] | None" = None,
    peak_mb: float | None = None,
) -> None:
    """Write the report's figures into a CSV file, in the form of `benchmarks/quality/`.

    `seconds` is the time of recommending, for the model that of its training and recommending.

    Args:
        run: A run whose report stands.
        path: The file.
        measured: The commit that was measured.
        metrics: Which figures; None means `file_metrics`.
        peak_mb: Most memory held in the run, for the model's rows; None means what recommending held.
    """
    report = EvaluationReport.load(run.folder.report)
    for model, protocol in report.runs:
        is_model = model == run.recipe.evaluation.model_name
        trained = run.kept.seconds_of(f"{protocol}/train") if is_model else 0.0
        of_model = report.runs[model, protocol]
        update_benchmark_csv(
            path,
            EvaluationReport(report.select(model=model, protocol=protocol), runs={(model, protocol): of_model}),
            config=run.recipe.name,
            commit=measured,
            seed=run.recipe.seed,
            metrics=metrics or file_metrics(run.recipe.evaluation.k),
            seconds=round(trained + of_model["seconds"], 1),
            peak_mb=peak_mb if is_model else None,
        )
