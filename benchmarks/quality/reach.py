"""How far each kind of candidate could carry a recommender on a log: what the pointers of `gamer-plus` may choose from.

    python -m benchmarks.quality.reach retailrocket --set data.interactions=DATA/retailrocket/interactions.parquet
    python -m benchmarks.quality.reach --quick

For every record of the test queries three lists are looked up as the model would see them, strictly before the query:
the user's own latest items, the items that rise among all users, and the neighbors of the user's items. `found` is the
share of targets in the list; `ceiling` is the NDCG@10 of a recommender that knew which items of the list are right. No
model that chooses from these lists alone passes the ceiling of `all three`; how far below it ends is the model's own.

Read it before training: a list whose ceiling is close to that of the others together is the switch to turn on first
(docs/guide-quality.md). `--quick` is the market; with `--output FOLDER` the table is written there.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from genrec.cli.recipe import load_recipe
from genrec.cli.stages import run_stages
from genrec.data.candidates import NO_ITEM, Asked, QueryContext
from genrec.data.histories import Queries
from genrec.data.neighbors import NeighborIndex
from genrec.data.prepared import PreparedDataset
from genrec.data.recent_events import RecentEvents
from genrec.evaluation.benchmark_tables import markdown_table
from genrec.evaluation.metrics import ndcg
from genrec.evaluation.protocols import MERGED, Task, task_of
from genrec.files import write_atomically

K, NUM_OWN = 10, 100
LISTS = ("own items", "rising items", "neighbors", "all three")
BATCH = 512


class Reach(NamedTuple):
    """What one list reaches for one behavior.

    Args:
        behavior: The asked behavior, or `merged`.
        name: The list.
        records: Records asked.
        found: Share of targets in the list.
        ceiling: NDCG@10 if the right items of the list came first.
    """

    behavior: str
    name: str
    records: int
    found: float
    ceiling: float


def reach_of(prepared: PreparedDataset, protocol: str = "last-session", *, num_own: int = NUM_OWN) -> list[Reach]:
    """Return what each list reaches for each behavior, and for all records together.

    Args:
        prepared: A log with times.
        protocol: Which split's test queries are asked.
        num_own: The user's latest events whose items are looked at.

    Raises:
        ValueError: If the log has no times.
    """
    queries = prepared.split(protocol).test
    histories = prepared.histories
    context = QueryContext(RecentEvents.of(histories), NeighborIndex.of(histories))
    context = context.prepared(queries.histories.query_times)
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    for behavior in queries.targets.ladder.names:
        task = task_of(queries, behavior)
        if len(task):
            hits = _hits(task, queries, context, queries.targets.ladder.index(behavior), num_own)
            for group in (behavior, MERGED):
                for name in LISTS:
                    found.setdefault((group, name), []).append(np.stack([hits[name], task.targets.sizes], axis=1))
    order = [MERGED, *queries.targets.ladder.names]
    groups = sorted(found, key=lambda key: (order.index(key[0]), LISTS.index(key[1])))
    return [_reach(behavior, name, np.concatenate(found[behavior, name])) for behavior, name in groups]


def reach_table(figures: Iterable[Reach]) -> str:
    """Return the Markdown table."""
    lines = [["behavior", "records", "list", "targets found", f"ceiling of NDCG@{K}"]]
    for each in figures:
        lines.append([each.behavior, f"{each.records:,}", each.name, f"{each.found:.1%}", f"{each.ceiling:.3f}"])
    return markdown_table(lines)


def _hits(task: Task, queries: Queries, context: QueryContext, behavior: int, num_own: int) -> dict[str, np.ndarray]:
    """Return how many of each record's targets each list holds, `[records]`."""
    hits = {name: np.zeros(len(task), dtype=np.int64) for name in LISTS}
    for start in range(0, len(task), BATCH):
        rows = slice(start, start + BATCH)
        past = queries.histories.select(task.rows[rows])
        asked = Asked.of_histories(past, [behavior], context.num_recent)
        lists = {
            "own items": _own_items(past.last(num_own).offsets, past.last(num_own).items),
            "rising items": context.rising(asked)[0],
            "neighbors": context.nearby(asked)[0],
        }
        lists["all three"] = np.concatenate(list(lists.values()), axis=1)
        for name, items in lists.items():
            hits[name][rows] = _distinct_hits(task, np.arange(len(task))[rows], items)
    return hits


def _own_items(offsets: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Return users' items in rows, padded `[users, events]`."""
    lengths = np.diff(offsets)
    rows = np.full((len(lengths), max(int(lengths.max(initial=0)), 1)), NO_ITEM, dtype=np.int64)
    rows[np.arange(rows.shape[1]) < lengths[:, None]] = items
    return rows


def _distinct_hits(task: Task, records: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Return how many different targets of each record stand in its row of items `[records]`."""
    pairs = records[:, None] * task.targets.num_items + items
    listed = np.unique(pairs[items != NO_ITEM])
    targets = task.targets.pairs[np.isin(task.targets.pairs, listed)]
    return np.bincount(targets // task.targets.num_items - records[0], minlength=len(records))[: len(records)]


def _reach(behavior: str, name: str, counts: np.ndarray) -> Reach:
    """Return the figures of records `[records, 2]`: targets found, and targets."""
    hits, sizes = counts.T
    first = np.arange(K) < hits[:, None]
    return Reach(behavior, name, len(counts), float(hits.sum() / sizes.sum()), float(ndcg(first, sizes, K).mean()))


def main(arguments: Iterable[str] | None = None) -> list[Reach]:
    """Prepare the log, look, print, and write if asked to."""
    given = _parser().parse_args(None if arguments is None else list(arguments))
    if given.quick == (given.recipe is not None):
        raise ValueError("Name a recipe like `retailrocket`, or pass `--quick` for the market, not both.")
    folder = str(given.runs / (given.recipe or "market"))
    overrides = [*(["market.num_users=300", "market.num_items=200"] if given.quick else []), *given.overrides]
    recipe = load_recipe(given.recipe or "market", overrides, output=folder)
    figures = reach_of(run_stages(recipe, say=print, until="prepare").prepared)
    print(f"\n{reach_table(figures)}")
    if given.output is not None:
        with write_atomically(given.output / f"reach_{recipe.name}.md") as temporary:
            temporary.write_text(reach_table(figures) + "\n", encoding="utf-8")
    return figures


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", help="of the log, such as retailrocket")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    parser.add_argument("--runs", type=Path, default=Path("runs/reach"), help="where the prepared log is kept")
    parser.add_argument("--output", type=Path, help="folder of the table")
    parser.add_argument("--quick", action="store_true", help="a small market: only shows that it works")
    return parser


if __name__ == "__main__":
    main()
