"""GAMER for ranking (appendix D) against DIN and the two-by-two transformer: AUROC and per-user AUC over several seeds.

    python benchmarks/quality/ranking.py --seeds 5
    python benchmarks/quality/ranking.py --log DATA/retailrocket --behaviors view,addtocart,transaction --seeds 5
    python benchmarks/quality/ranking.py --quick

Without a log it is the synthetic market. A log is a folder with `interactions.parquet` (`user_id`, `item_id`,
`behavior`, `timestamp`). `--users N` takes N users of either (1,000). The log is reduced to one impression per session
and item, a conversion if any of the behaviors `--conversions` (default: the target behavior) came of it there. The last
session of each user is tested, the one before chooses the epoch. All models see the same impressions, earlier sessions
only, and no user id; a seed decides weights, batches and codes. `peak_mb` is the process's so far, of all models.

Writes rows with `auroc` and `gauc` per seed, and their mean over seeds with a 95 % t interval as seed `all`, to
`benchmarks/quality/ranking_NAME.csv`, and prints the table. With `--quick` nothing is written without `--csv`.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from transformers import AutoConfig, AutoModel, EarlyStoppingCallback, PreTrainedModel, set_seed
from transformers.utils import logging

import genrec  # noqa: F401  registers the models
from genrec.cli.provenance import commit, peak_megabytes
from genrec.data.catalog import Catalog
from genrec.data.config import DataConfig
from genrec.data.histories import Histories
from genrec.data.market import SyntheticMarket
from genrec.data.preparation import prepare, read_sources
from genrec.data.splits import Split, split_last_session
from genrec.embedders.collaborative import CollaborativeEmbedder
from genrec.evaluation import EvaluationReport
from genrec.evaluation.benchmark_csv import update_benchmark_csv
from genrec.evaluation.ranking_metrics import num_telling_users
from genrec.item_tokenizers import RQKMeansTokenizer
from genrec.presets import preset_path
from genrec.training.ranking_samples import OUTCOMES, RankingDataset, exposures_and_conversions
from genrec.training.ranking_trainer import RankingTrainer, RankingTrainingArguments, ScoredImpressions

PRESETS = {"gamer-ranking": "gamer-ranking-tiny", "din": "din", "candidate-transformer": "candidate-transformer"}
METRICS = ("auroc", "gauc")
PROTOCOL, BEHAVIOR = "last-session", "conversion"
PATIENCE = 3
EPOCHS = {"gamer-ranking": 20, "din": 8, "candidate-transformer": 8}  # at most; a GAMER epoch is one pass over users
# 97.5 % points of Student's t for 1, 2, ... degrees of freedom; the normal one beyond.
T_POINTS = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


class Run(NamedTuple):
    """What one model reached with one seed."""

    values: dict[str, float]
    impressions: int
    users: int
    seconds: float


def read_histories(log: Path | None, behaviors: str | None, num_users: int) -> Histories:
    """Return the histories of a log folder, or of the market; of a log at most so many users, drawn with seed 0."""
    if log is None:
        return SyntheticMarket(num_users=num_users).histories()
    if behaviors is None:
        raise ValueError("A log needs `--behaviors`, its ladder from the weakest to the strongest: view,cart,buy.")
    config = DataConfig(interactions=str(log / "interactions.parquet"), behaviors=behaviors)
    source, _ = read_sources(config)
    with tempfile.TemporaryDirectory() as folder:
        histories = prepare(source, config, folder + "/prepared").histories
    if len(histories) <= num_users:
        return histories
    return histories.select(np.sort(np.random.default_rng(0).choice(len(histories), num_users, replace=False)))


def item_codes(train: Histories, seed: int) -> RQKMeansTokenizer:
    """Return a tokenizer fitted on who is near whom in the training part."""
    vectors = CollaborativeEmbedder(dim=64, seed=seed).fit(train).embed(Catalog(train.item_ids))
    return RQKMeansTokenizer(seed=seed).fit(vectors, train.item_ids, OUTCOMES)


def build(name: str, split: Split, seed: int) -> tuple[PreTrainedModel, Tensor | None]:
    """Return a model with fresh weights, and the codes if it reads them."""
    set_seed(seed)
    folder = preset_path("hub_configs", PRESETS[name])
    if name != "gamer-ranking":
        return AutoModel.from_config(AutoConfig.from_pretrained(folder, num_items=len(split.train.item_ids))), None
    tokenizer = item_codes(split.train, seed)
    fields = {"codebook_sizes": tokenizer.codebook_sizes, "behavior_levels": tokenizer.behavior_levels}
    return AutoModel.from_config(AutoConfig.from_pretrained(folder, **fields)), tokenizer.codes


def train_and_score(name: str, split: Split, seed: int, max_epochs: int, folder: str) -> ScoredImpressions:
    """Train a model, keep its best epoch by validation AUROC, and score the test sessions."""
    model, codes = build(name, split, seed)
    samples = RankingDataset.of_sessions if codes is None else RankingDataset.of_users
    length = model.config.max_history_items
    args = RankingTrainingArguments(
        output_dir=folder, seed=seed, num_train_epochs=max_epochs, disable_tqdm=True, logging_strategy="no"
    )
    validation = RankingDataset.of_queries(split.validation, length)
    stop = [EarlyStoppingCallback(PATIENCE)]
    trainer = RankingTrainer(model, args, samples(split.train, length), validation, codes, stop)
    trainer.train()
    return trainer.scored(RankingDataset.of_queries(split.test, length))


def run(name: str, split: Split, seed: int, max_epochs: int) -> Run:
    """Return what a model reaches with a seed."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        scored = train_and_score(name, split, seed, max_epochs, folder)
    values = {"auroc": scored.auroc(), "gauc": scored.gauc()}
    users = num_telling_users(scored.labels, scored.users)
    return Run(values, len(scored.labels), users, time.perf_counter() - started)


def mean_and_interval(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Return the mean over seeds and its 95 % t interval, which one seed has not."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None, None
    point = T_POINTS[len(values) - 2] if len(values) - 2 < len(T_POINTS) else 1.96
    half = point * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def report_of(name: str, metric: str, values: Sequence[float], one: Run) -> EvaluationReport:
    """Return one figure in the form that the CSV file takes: of one seed, or the mean of several."""
    mean, low, high = mean_and_interval(values)
    row: dict[str, Any] = {"model": name, "protocol": PROTOCOL, "behavior": BEHAVIOR, "metric": metric}
    records = one.impressions if metric == "auroc" else one.users
    return EvaluationReport([{**row, "value": mean, "low": low, "high": high, "records": records}])


def write(csv: Path, config: str, name: str, runs: Sequence[Run]) -> None:
    """Write one row per seed and metric, and the mean over all."""
    source: dict[str, Any] = {"config": config, "commit": commit() or "", "peak_mb": peak_megabytes()}
    for metric in METRICS:
        for seed, one in enumerate(runs):
            figure = report_of(name, metric, [one.values[metric]], one)
            update_benchmark_csv(csv, figure, seed=seed, seconds=one.seconds, **source)
        figure = report_of(name, metric, [one.values[metric] for one in runs], runs[0])
        update_benchmark_csv(csv, figure, seed="all", seconds=sum(one.seconds for one in runs), **source)


def table(results: dict[str, list[Run]]) -> str:
    """Return the means over seeds as text, one line per model."""
    lines = [f"{'model':<24}{'auroc':<28}{'gauc':<28}seconds per seed"]
    for name, runs in results.items():
        cells = [_cell([one.values[metric] for one in runs]) for metric in METRICS]
        seconds = np.mean([one.seconds for one in runs])
        lines.append(f"{name:<24}{cells[0]:<28}{cells[1]:<28}{seconds:.0f}")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    mean, low, high = mean_and_interval(values)
    return f"{mean:.4f}" if low is None else f"{mean:.4f} [{low:.4f}, {high:.4f}]"


def main(arguments: Iterable[str] | None = None) -> dict[str, list[Run]]:
    """Run all models over the seeds and print the table."""
    given = _parser().parse_args(None if arguments is None else list(arguments))
    logging.disable_progress_bar()
    num_users, seeds = (given.users or 300, 1) if given.quick else (given.users or 1000, given.seeds)
    histories = read_histories(given.log, given.behaviors, num_users)
    conversions = given.conversions.split(",") if given.conversions else [histories.ladder.target]
    split = split_last_session(exposures_and_conversions(histories, conversions))
    labels = split.train.behaviors
    print(f"{len(labels):,} training impressions of {len(split.train):,} users, {labels.mean():.1%} convert")
    results: dict[str, list[Run]] = {}
    config = "market" if given.log is None else given.log.name
    csv = given.csv or (None if given.quick else Path(__file__).parent / f"ranking_{config}.csv")
    for name in PRESETS:
        max_epochs = 2 if given.quick else EPOCHS[name]
        results[name] = [run(name, split, seed, max_epochs) for seed in range(seeds)]
        if csv is not None:
            write(csv, f"{config}-ranking", name, results[name])
    print(table(results))
    return results


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", type=Path, help="folder with interactions.parquet; the synthetic market without it")
    parser.add_argument("--behaviors", help="the log's ladder, weakest first")
    parser.add_argument("--conversions", help="what counts as a conversion; the target behavior without it")
    parser.add_argument("--users", type=int, help="at most so many users; 1,000 without it")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--quick", action="store_true", help="300 users, 2 epochs, one seed: only shows that it works")
    return parser


if __name__ == "__main__":
    main()
