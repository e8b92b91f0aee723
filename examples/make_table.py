"""Write a small table of events, to try `genrec init` and `genrec run` on.

python examples/make_table.py events.csv --num-events 200
"""

import argparse
from pathlib import Path

from pyarrow import csv

from genrec import SyntheticMarket


def main(path: Path, num_events: int) -> None:
    """Take the first events of a small synthetic market, user by user."""
    market = SyntheticMarket(num_users=num_events // 5, num_items=40, num_categories=2, sessions_per_user=6.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    csv.write_csv(market.log().drop_columns("session").slice(0, num_events), path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--num-events", type=int, default=200)
    main(**vars(parser.parse_args()))
