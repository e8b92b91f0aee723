"""Compare the synthetic market with real logs: prints the table of `docs/market.md`.

    python benchmarks/quality/market_statistics.py DATA_FOLDER [--seeds 0 1 2]

`DATA_FOLDER` holds `deskdrop`, `retailrocket` and `taobao`, each with an `interactions.parquet` (`user_id`, `item_id`,
`behavior`, `timestamp` in seconds). Without it, only the market's columns are printed. Nothing is trained.
"""

import argparse
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from genrec.data.behaviors import BehaviorLadder
from genrec.data.histories import DEFAULT_GAP_MINUTES, Histories, offsets_from_counts, sessions_by_gap
from genrec.data.market import SyntheticMarket
from genrec.data.statistics import log_statistics

LADDERS = {
    "deskdrop": "view,like,bookmark,follow,comment",
    "retailrocket": "view,cart,buy",
    "taobao": "favorite,cart,buy",
}


def read_log(path: Path, ladder: BehaviorLadder) -> Histories:
    """Read a parquet log with sessions by a 30-minute gap."""
    table = pq.read_table(path)
    users, user_rows = np.unique(table["user_id"].to_numpy(), return_inverse=True)
    item_ids, item_rows = np.unique(table["item_id"].to_numpy(), return_inverse=True)
    behaviors = np.array([ladder.index(name) for name in table["behavior"].to_pylist()])
    times = table["timestamp"].to_numpy().astype(np.int64)
    order = np.lexsort((np.arange(len(times)), times, user_rows))
    user_rows, times = user_rows[order], times[order]
    sessions = sessions_by_gap(user_rows, times, DEFAULT_GAP_MINUTES)
    offsets = offsets_from_counts(np.bincount(user_rows))
    return Histories(item_rows[order], behaviors[order], sessions, times, offsets, users, item_ids, ladder)


def by_ladder_place(statistics: dict[str, float], ladder: BehaviorLadder) -> dict[str, float]:
    """Name behavior shares by their place: the lowest, those between, the top."""
    plain = {name: value for name, value in statistics.items() if not name.startswith("behavior:")}
    shares = [statistics[f"behavior:{name}"] for name in ladder.names]
    places = {"lowest": shares[0], "between": sum(shares[1:-1]), "top": shares[-1]}
    return plain | {
        f"events with the {place} behavior{'s' * (place == 'between')}": share for place, share in places.items()
    }


def format_cell(values: list[float]) -> str:
    """Write one value, or the range of several."""
    digits = 0 if max(values) >= 100 else 2 if max(values) >= 1 else 3
    low, high = f"{min(values):,.{digits}f}", f"{max(values):,.{digits}f}"
    return low if low == high else f"{low} to {high}"


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="folder of the real logs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    arguments = parser.parse_args()

    markets = [SyntheticMarket(seed=seed) for seed in arguments.seeds]
    columns = {
        f"market, {len(markets)} seeds": [by_ladder_place(log_statistics(m.histories()), m.behaviors) for m in markets]
    }
    for name, names in LADDERS.items() if arguments.data else ():
        ladder = BehaviorLadder.parse(names)
        path = arguments.data / name / "interactions.parquet"
        columns[name] = [by_ladder_place(log_statistics(read_log(path, ladder)), ladder)]

    print("| statistic | " + " | ".join(columns) + " |")
    print("|---|" + "---|" * len(columns))
    for statistic in next(iter(columns.values()))[0]:
        cells = [format_cell([row[statistic] for row in rows]) for rows in columns.values()]
        print(f"| {statistic} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
