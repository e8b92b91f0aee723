"""SASRec against another library's: RecTools' and ours on one split, their lists counted by the same code.

    python -m benchmarks.quality.sasrec_outside DATA/ml100k --other --seeds 5
    python -m benchmarks.quality.sasrec_outside DATA/ml100k --quick

Without `--other` only ours is trained. RecTools is no dependency: install `'rectools[torch]'` into an environment of
its own that holds genrec's dependencies too (below Python 3.13 RecTools wants numpy 1, hence also `'pyarrow<22'`).

The protocol is RecTools' usual one: a user's last interaction is asked, all before it train and are the history
(`LastNSplitter(1)`; with `--other` RecTools is asked whether this split and these figures are its own), every item is
ranked, those of the history left out (`filter_viewed=True`, what its examples pass; it has no default). All
interactions count alike, whatever their behavior. Nothing is chosen on validation data: both train for the same number
of epochs, and the last weights count. Events of one second keep the log's order.

Matched: width, layers, heads, inner width (RecTools' is the width), ReLU, dropout rate (of attention weights too),
length, batches, epochs, softmax over all items, Adam with RecTools' betas, no weight decay, no clipping, and a norm
before each sublayer and after the last. Not matched, because it is how each is written (the first with
`--like-rectools weights`, the next two with `--like-rectools layers`, both with both):

- RecTools draws all matrices from Xavier's normal distribution, ours from one of standard deviation 0.02.
- Its residuals start from the normed input of a sublayer, and keys and values are not normed; ours from the input, and
  they are.
- It drops inside the feed-forward and not after attention; ours the other way round.
- Its positions count from the latest item, ours from the first one read; they differ for users with less than `length`.
- Its pads are attended to, as zeros, and count as one more item of the softmax; ours do not.
- It ranks only items that stand among the last `length + 1` training interactions of a user; ours ranks all.

Prints per metric the mean and standard deviation over seeds, and the difference with Welch's 95 % t interval; within
seed noise means that the interval holds 0. `--rows FILE` writes the figures of each seed as JSON.
"""

import argparse
import importlib
import json
import logging
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
from transformers import set_seed

from benchmarks.quality.ranking import T_POINTS
from benchmarks.quality.rectools_layers import PARTS, make_like_rectools
from genrec.data.histories import Histories, Queries, as_histories
from genrec.data.splits import leave_one_out
from genrec.evaluation.metrics import hit, mrr, ndcg
from genrec.models.discriminative import SASRecConfig, SASRecModel
from genrec.recommender.sequential import SequentialRecommender
from genrec.training.item_arguments import ItemTrainingArguments
from genrec.training.item_trainer import ItemTrainer

METRICS = {"hr@1": (hit, 1), "hr@5": (hit, 5), "hr@10": (hit, 10), "ndcg@10": (ndcg, 10), "mrr@10": (mrr, 10)}
COLUMNS = ("user_id", "item_id", "timestamp")
LIST_LENGTH = 10
BEHAVIOR = "any"
PACKAGE = "rectools[torch]"
ADAM_BETAS = (0.9, 0.98)  # RecTools' own, which it lets nobody change
NORMAL_POINT = 1.96

Lists = Callable[[Queries, "Settings", int], np.ndarray]


@dataclass(frozen=True)
class Settings:
    """What both libraries are told.

    Args:
        width: Of the embeddings, the states and the inside of the feed-forward.
        layers: Transformer layers.
        heads: Attention heads.
        dropout: Dropout rate everywhere.
        length: Items of history that are read.
        epochs: Passes over the users.
        batch_size: Users per update.
        learning_rate: Of Adam, constant.
        like_rectools: What ours takes from RecTools, of `"weights"` and `"layers"` (see `rectools_layers.py`).
    """

    width: int = 64
    layers: int = 2
    heads: int = 2
    dropout: float = 0.2
    length: int = 50
    epochs: int = 30
    batch_size: int = 32
    learning_rate: float = 1e-3
    like_rectools: tuple[str, ...] = ()


class Difference(NamedTuple):
    """Ours minus the other's mean, and its 95 % interval over seeds, which needs two seeds of each."""

    mean: float
    low: float | None
    high: float | None

    @property
    def is_noise(self) -> bool | None:
        """Whether the interval holds 0; None without an interval."""
        return None if self.low is None or self.high is None else self.low <= 0 <= self.high


def read_histories(folder: Path) -> Histories:
    """Return a log folder's interactions as histories of one behavior, each its own session, without times.

    Raises:
        FileNotFoundError, ValueError: If the folder has no `interactions.parquet`, or that lacks a column.
    """
    path = folder / "interactions.parquet"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no `interactions.parquet`. Give the folder of a log.")
    names = pq.read_schema(path).names
    for column in COLUMNS:
        if column not in names:
            raise ValueError(f"{path} needs {', '.join(COLUMNS)}; `{column}` is missing. Rename the table's column.")
    return histories_of(pq.read_table(path, columns=list(COLUMNS)).to_pydict())


def histories_of(columns: dict[str, list[Any]]) -> Histories:
    """Return histories of `user_id`, `item_id`, `timestamp`: users and items in rising order, events by time.

    Args:
        columns: One entry per event in each; events of a user and a second keep their order.
    """
    users, times = columns["user_id"], columns["timestamp"]
    order = sorted(range(len(users)), key=lambda event: (users[event], times[event]))
    events = {name: [columns[name][event] for event in order] for name in ("user_id", "item_id")}
    return as_histories({**events, "behavior": [BEHAVIOR] * len(order)}, sorted(set(columns["item_id"])), BEHAVIOR)


def ours(queries: Queries, settings: Settings, seed: int) -> np.ndarray:
    """Train genrec's SASRec on the histories, and return its lists as catalog rows, `[users, 10]`."""
    set_seed(seed)
    train = queries.histories
    model = SASRecModel(config_of(settings, len(train.item_ids)))
    make_like_rectools(model, settings.like_rectools)
    with tempfile.TemporaryDirectory() as folder:
        ItemTrainer(model, arguments_of(settings, seed, folder), train).train()
    recommender = SequentialRecommender(model, train.item_ids, train.ladder)
    return recommender.recommend(train, k=LIST_LENGTH, exclude_seen=True).items


def config_of(settings: Settings, num_items: int) -> SASRecConfig:
    """Return our configuration of the settings."""
    return SASRecConfig(
        num_items=num_items,
        num_behaviors=1,
        hidden_size=settings.width,
        intermediate_size=settings.width,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        max_history_items=settings.length,
        dropout=settings.dropout,
        attention_dropout=settings.dropout,
        hidden_act="relu",
        norm_first=True,
        loss="softmax",
    )


def arguments_of(settings: Settings, seed: int, folder: str) -> ItemTrainingArguments:
    """Return our training arguments of the settings."""
    return ItemTrainingArguments(
        output_dir=folder,
        seed=seed,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        adam_beta1=ADAM_BETAS[0],
        adam_beta2=ADAM_BETAS[1],
        weight_decay=0.0,
        max_grad_norm=0.0,  # 0 is no clipping
        bucket_batches=1,
        eval_strategy="no",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )


def rectools(queries: Queries, settings: Settings, seed: int) -> np.ndarray:
    """Train RecTools' SASRec on the histories, and return its lists as catalog rows, `[users, 10]`, -1 at the end.

    Raises:
        ImportError: If RecTools is missing.
    """
    events = import_other("pandas").DataFrame(interactions_of(queries.histories))
    dataset = import_other("rectools.dataset").Dataset.construct(events)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    set_seed(seed)
    model = import_other("rectools.models").SASRecModel(
        n_factors=settings.width,
        n_blocks=settings.layers,
        n_heads=settings.heads,
        dropout_rate=settings.dropout,
        session_max_len=settings.length,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        lr=settings.learning_rate,
        loss="softmax",
        recommend_torch_device="cpu",
    )
    model.fit(dataset)
    found = model.recommend(np.arange(len(queries)), dataset, k=LIST_LENGTH, filter_viewed=True)
    return lists_of(found["user_id"], found["item_id"], found["rank"], len(queries))


def check_protocol(whole: Histories, queries: Queries, lists: np.ndarray) -> None:
    """Ask RecTools whether it splits the log in the same way, and finds the same figures in the lists.

    Args:
        whole: The histories before the split.
        queries: What they were split into.
        lists: Catalog rows, `[users, 10]`.

    Raises:
        ValueError: If it does not.
    """
    pandas, metrics = import_other("pandas"), import_other("rectools.metrics")
    events = pandas.DataFrame(interactions_of(whole.select(whole.lengths > 1)))
    kept = {f"filter_{name}": False for name in ("cold_users", "cold_items", "already_seen")}
    splitter = import_other("rectools.model_selection").LastNSplitter(1, n_splits=1, **kept)
    train, test, _ = next(splitter.split(import_other("rectools.dataset").Interactions(events)))
    for name, places, part in (("train", np.sort(train), queries.histories), ("test", test, queries.targets)):
        if not np.array_equal(events["item_id"].to_numpy()[places], part.items):
            raise ValueError(f"RecTools' `LastNSplitter(1)` gives another {name} part. Check `leave_one_out`.")
    users, places = np.nonzero(lists >= 0)
    found = pandas.DataFrame({"user_id": users, "item_id": lists[users, places], "rank": places + 1})
    kinds = {"hr": metrics.HitRate, "mrr": metrics.MRR, "ndcg": partial(metrics.NDCG, divide_by_achievable=True)}
    asked = {name: kinds[name.split("@")[0]](k=k) for name, (_, k) in METRICS.items()}
    theirs, own = metrics.calc_metrics(asked, found, events.iloc[test]), figures_of(lists, queries.targets.items)
    for name, value in theirs.items():
        if not math.isclose(value, own[name], abs_tol=1e-9):
            raise ValueError(f"RecTools finds {name} {value} in lists where we find {own[name]}. Check `figures_of`.")


def import_other(name: str) -> Any:
    """Import a module of the other library.

    Raises:
        ImportError: If it is missing, naming the package to install.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"`--other` needs RecTools, but {name} cannot be imported ({error}). Install it beside genrec in an "
            f"environment of its own: pip install '{PACKAGE}'. Or leave `--other` out."
        ) from error


def interactions_of(histories: Histories) -> dict[str, Any]:
    """Return RecTools' columns; users are the histories' rows, and the n-th event of a user is n seconds after 1970."""
    places = np.arange(len(histories.items)) - histories.offsets[:-1][histories.rows]
    times = places.astype("datetime64[s]").astype("datetime64[ns]")
    return {"user_id": histories.rows, "item_id": histories.items, "weight": np.ones(len(places)), "datetime": times}


def lists_of(
    users: Sequence[int] | np.ndarray, items: Sequence[int] | np.ndarray, ranks: Sequence[int] | np.ndarray, count: int
) -> np.ndarray:
    """Return a long table of recommendations as lists, `[users, 10]`, filled with -1; ranks count from 1.

    Example:
        >>> lists_of([0, 0, 2], [7, 9, 5], [2, 1, 1], count=3)[:, :2].tolist()
        [[9, 7], [-1, -1], [5, -1]]
    """
    lists = np.full((count, LIST_LENGTH), -1, dtype=np.int64)
    lists[np.asarray(users), np.asarray(ranks) - 1] = np.asarray(items)
    return lists


def figures_of(lists: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Return each metric's mean over users.

    Args:
        lists: Catalog rows, best first, `[users, 10]`, -1 for none.
        targets: The one right item of each user, `[users]`.
    """
    assert lists.shape == (len(targets), LIST_LENGTH), lists.shape
    hits, ones = lists == targets[:, None], np.ones(len(targets), dtype=np.int64)
    return {name: float(metric(hits, ones, k).mean()) for name, (metric, k) in METRICS.items()}


def difference_of(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Return the difference of two means over independent seeds with Welch's 95 % t interval."""
    mean = float(np.mean(first) - np.mean(second))
    if min(len(first), len(second)) < 2:
        return Difference(mean, None, None)
    parts = [float(np.var(values, ddof=1)) / len(values) for values in (first, second)]
    if sum(parts) == 0:
        return Difference(mean, mean, mean)
    shares = [part**2 / (len(values) - 1) for part, values in zip(parts, (first, second), strict=True)]
    degrees = int(sum(parts) ** 2 / sum(shares) + 1e-9)  # rounded down, so that the interval is rather too wide
    point = T_POINTS[degrees - 1] if degrees <= len(T_POINTS) else NORMAL_POINT
    half = point * math.sqrt(sum(parts))
    return Difference(mean, mean - half, mean + half)


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """Return the comparison as Markdown, one line per metric; the first model minus the second where there are two."""
    names = list(results)
    header = ["metric", *(f"{name} (sd)" for name in names)]
    if len(names) == 2:
        header += [f"{names[0]} minus {names[1]} (95 %)", "within seed noise"]
    lines = [header, ["---"] * len(header)]
    for metric in METRICS:
        values = [[one[metric] for one in results[name]] for name in names]
        line = [metric, *map(_mean_cell, values)]
        if len(values) == 2:
            line += _difference_cells(difference_of(values[0], values[1]))
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _mean_cell(values: Sequence[float]) -> str:
    spread = f" ({np.std(values, ddof=1):.4f})" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{spread}"


def _difference_cells(difference: Difference) -> list[str]:
    if difference.is_noise is None:
        return [f"{difference.mean:+.4f}", "needs two seeds"]
    interval = f"[{difference.low:+.4f}, {difference.high:+.4f}]"
    return [f"{difference.mean:+.4f} {interval}", "yes" if difference.is_noise else "no"]


def run(
    models: dict[str, Lists], queries: Queries, settings: Settings, seeds: int
) -> dict[str, list[dict[str, float]]]:
    """Return each model's figures, one entry per seed, and print them as they come."""
    results: dict[str, list[dict[str, float]]] = {name: [] for name in models}
    for seed in range(seeds):
        for name, lists in models.items():
            started = time.perf_counter()
            figures = figures_of(lists(queries, settings, seed), queries.targets.items)
            results[name].append(figures)
            shown = ", ".join(f"{metric} {value:.4f}" for metric, value in figures.items())
            print(f"{name}, seed {seed}, {time.perf_counter() - started:.0f} s: {shown}", flush=True)
    return results


def main(arguments: Iterable[str] | None = None) -> dict[str, list[dict[str, float]]]:
    """Train over the seeds and print the comparison."""
    given = _parser().parse_args(None if arguments is None else list(arguments))
    for option in ("seeds", "epochs"):
        if getattr(given, option) < 1:
            raise ValueError(f"`--{option}` must be at least 1, got {getattr(given, option)}.")
    models: dict[str, Lists] = {"genrec": ours}
    if given.other:
        version = getattr(import_other("rectools"), "__version__", None) or import_other("rectools.version").VERSION
        print(f"RecTools {version}, torch {torch.__version__}")
        models["rectools"] = rectools
    settings = Settings(epochs=1 if given.quick else given.epochs, like_rectools=tuple(given.like_rectools))
    whole = read_histories(given.log)
    queries = leave_one_out(whole)
    print(f"{len(queries):,} users, {len(whole.item_ids):,} items, {settings}")
    if given.other:
        most_asked = np.argsort(-np.bincount(queries.targets.items), kind="stable")[:LIST_LENGTH]
        check_protocol(whole, queries, np.tile(most_asked, (len(queries), 1)))
    results = run(models, queries, settings, 1 if given.quick else given.seeds)
    print(table(results))
    if given.rows is not None:
        given.rows.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return results


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path, help="folder with interactions.parquet (user_id, item_id, timestamp)")
    parser.add_argument("--other", action="store_true", help=f"train RecTools' too, which needs {PACKAGE}")
    parser.add_argument("--like-rectools", nargs="+", choices=PARTS, default=(), help="what ours takes from RecTools")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=Settings.epochs)
    parser.add_argument("--rows", type=Path, help="a JSON file for the figures of each seed")
    parser.add_argument("--quick", action="store_true", help="one epoch, one seed: only shows that it works")
    return parser


if __name__ == "__main__":
    main()
