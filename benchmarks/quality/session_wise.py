"""Next-item leave-one-out beside session-wise evaluation: how much a rule gains that repeats the last items.

    python -m benchmarks.quality.session_wise --log DATA/retailrocket
    python -m benchmarks.quality.session_wise --quick

GAMER, section 3.2 and figure 2. Both protocols ask the same users: leave-one-out for each user's last interaction (of
the asked behavior), given all before it; session-wise for the last session, given the sessions before it. `recent@n`
is the share of targets among the user's last n items, without repeats. The recency rule is fitted on the histories of
the queries, of either protocol its own. `any` asks for every behavior: leave-one-out for the very last interaction,
session-wise for all (user, behavior) records.

A log is a folder with `interactions.parquet` (`user_id`, `item_id`, `behavior`, `timestamp`), read with the filters
and the session gap of `DataConfig`; without one it is the synthetic market. Writes `session_wise_NAME.csv` (one row per
figure), `.md` (the table, printed too) and, where matplotlib is installed, `.png` into `--output`; with `--quick`
nothing is written unless `--output` is given.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.quality.market_statistics import LADDERS
from benchmarks.quality.ranking import read_histories
from genrec.cli.provenance import commit
from genrec.data.histories import Histories, Queries
from genrec.data.splits import leave_one_out, split_last_session
from genrec.evaluation import EvaluationReport, evaluate
from genrec.evaluation.benchmark_csv import update_benchmark_csv
from genrec.evaluation.line_plots import Line, plot_lines
from genrec.evaluation.protocols import MERGED
from genrec.evaluation.recent_targets import MAX_DEPTH, recent_target_shares
from genrec.evaluation.report import Row
from genrec.files import write_atomically
from genrec.recommender import RecencyRecommender

MODEL, LEAVE_ONE_OUT, SESSION_WISE, ANY = "recency", "leave-one-out", "last-session", "any"
METRICS = ("hit@1", "hit@5", "hit@10", "ndcg@5", "ndcg@10")
SHOWN_DEPTHS = (1, 5, 10, 20)
DEFAULT_USERS, QUICK_USERS, ALL_USERS = 2500, 300, 10**9


class Cell(NamedTuple):
    """What one protocol shows of one behavior: the shares at each depth, and the rule's figures."""

    protocol: str
    behavior: str
    shares: np.ndarray
    num_targets: int
    report: EvaluationReport


def cells_of(histories: Histories, behavior: str | None) -> list[Cell]:
    """Return both protocols' cells of a behavior, or of all of them, for the users that both can ask."""
    session_wise = split_last_session(histories).test
    asked = np.isin(histories.users, session_wise.histories.users)
    queries = {LEAVE_ONE_OUT: leave_one_out(histories.select(asked), behavior), SESSION_WISE: session_wise}
    return [_cell(protocol, each, behavior) for protocol, each in queries.items()]


def _cell(protocol: str, queries: Queries, behavior: str | None) -> Cell:
    rule = RecencyRecommender().fit(queries.histories)
    behaviors = None if behavior is None else [behavior]
    report = evaluate(rule, queries, name=MODEL, protocol=protocol, metrics=METRICS, behaviors=behaviors)
    shares, num_targets = shares_of(queries, behavior)
    return Cell(protocol, behavior or ANY, shares, num_targets, report)


def shares_of(queries: Queries, behavior: str | None) -> tuple[np.ndarray, int]:
    """Return the share of targets among the last 1, 2, ... items, and how many targets there are.

    For all behaviors it is the mean over the targets of each.
    """
    names = queries.targets.ladder.names if behavior is None else (behavior,)
    is_asked = {name: queries.targets.behaviors == queries.targets.ladder.index(name) for name in names}
    pairs = queries.targets.rows * len(queries.targets.item_ids) + queries.targets.items
    counts = {name: len(np.unique(pairs[mask])) for name, mask in is_asked.items() if mask.any()}
    if not counts:
        raise ValueError(f"No query has a target of {' or '.join(names)}. Take another behavior or a longer log.")
    shares = [recent_target_shares(queries, name, MAX_DEPTH) * count for name, count in counts.items()]
    return np.sum(shares, axis=0) / sum(counts.values()), sum(counts.values())


def rows_of(cell: Cell) -> list[Row]:
    """Return a cell's figures: the shares as `recent@n`, and the rule's."""
    place = {"model": MODEL, "protocol": cell.protocol, "behavior": cell.behavior}
    counts = {"low": None, "high": None, "records": cell.num_targets}
    rows: list[Row] = [
        {**place, "metric": f"recent@{depth}", "value": float(share), **counts}
        for depth, share in enumerate(cell.shares, start=1)
    ]
    group = MERGED if cell.behavior == ANY else cell.behavior
    figures = [row for row in cell.report.select(behavior=group) if row["metric"] in METRICS]
    return rows + [{**row, "behavior": cell.behavior} for row in figures]


def table(cells: list[Cell]) -> str:
    """Return the Markdown table, one line per behavior and protocol."""
    metrics = [*(f"recent@{depth}" for depth in SHOWN_DEPTHS), *METRICS]
    titles = [metric.replace("ndcg", "NDCG").replace("hit", "HR") for metric in metrics]
    lines = [["behavior", "protocol", "targets", *titles], ["---"] * (3 + len(metrics))]
    for cell in cells:
        values = {row["metric"]: row["value"] for row in rows_of(cell)}
        shown = [f"{values[metric]:.4f}" for metric in metrics]
        lines.append([cell.behavior, cell.protocol, f"{cell.num_targets:,}", *shown])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plot(cells: list[Cell], path: Path) -> Path:
    """Draw the shares against the depth, a panel per behavior. Return the PNG's path."""
    panels: dict[str, dict[str, Line]] = {}
    for cell in cells:
        line = Line(range(1, len(cell.shares) + 1), cell.shares.tolist())
        panels.setdefault(f"share of targets, {cell.behavior}", {})[cell.protocol] = line
    return plot_lines(panels, path, x_label="among the user's last n items")


def main(arguments: Iterable[str] | None = None) -> list[Cell]:
    """Measure, print, and write."""
    given = _parser().parse_args(None if arguments is None else list(arguments))
    name = "market" if given.log is None else given.log.name
    num_users = given.users or (QUICK_USERS if given.quick else DEFAULT_USERS if given.log is None else ALL_USERS)
    histories = read_histories(given.log, given.behaviors or LADDERS.get(name), num_users)
    cells = [cell for behavior in (None, histories.ladder.target) for cell in cells_of(histories, behavior)]
    print(table(cells))
    folder = given.output or (None if given.quick else Path(__file__).parent)
    if folder is not None:
        _write(cells, folder / f"session_wise_{name}", name)
    return cells


def _write(cells: list[Cell], stem: Path, config: str) -> None:
    for cell in cells:
        report = EvaluationReport(rows_of(cell), runs=cell.report.runs)
        update_benchmark_csv(stem.with_suffix(".csv"), report, config=config, commit=commit() or "", seed=0)
    with write_atomically(stem.with_suffix(".md")) as temporary:
        temporary.write_text(table(cells) + "\n", encoding="utf-8")
    try:
        plot(cells, stem.with_suffix(".png"))
    except ImportError as error:
        print(f"no plot: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", type=Path, help="folder with interactions.parquet; the synthetic market without it")
    parser.add_argument("--behaviors", help="the log's ladder, weakest first; known for the logs of the benchmarks")
    parser.add_argument("--users", type=int, help="at most so many users; of a log all, of the market 2,500 without it")
    parser.add_argument("--output", type=Path, help="folder of the files; beside this script without it")
    parser.add_argument("--quick", action="store_true", help="300 users of the market, or of the log")
    return parser


if __name__ == "__main__":
    main()
