"""What models lose when test histories lack weak behaviors, or the items of the test session (GAMER, appendix B).

    python -m benchmarks.quality.robustness tiger-mb=runs/tiger-mb mbgen=runs/mbgen gamer=runs/gamer --gain-of gamer
    python -m benchmarks.quality.robustness K=0=runs/gamer-k0 K=2=runs/gamer-k2 K=4=runs/gamer-k4 --name retailrocket-k
    python -m benchmarks.quality.robustness --quick

Each argument is `NAME=FOLDER`, a folder that `genrec run` left; what stands before the last `=` is the name. A name
given several times is several seeds of one model, which the table and the plot average. All runs must ask the same
records. `--rules` puts rules beside them, fitted and tuned on the first run's data. `--quick` trains and reads nothing:
it uses rules on the synthetic market.

Writes `robustness_NAME.csv` (one row per figure; the perturbation stands behind the protocol, `last-session/drop-0.5`),
`.md` (the table, printed too) and, where matplotlib is installed, `.png` into `--output`; with `--quick` nothing is
written unless `--output` is given.
"""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from genrec.cli.evaluating import fitted_rule
from genrec.cli.provenance import commit
from genrec.data.histories import Queries
from genrec.data.market import SyntheticMarket
from genrec.data.prepared import PreparedDataset
from genrec.data.splits import split_last_session
from genrec.evaluation.benchmark_csv import update_benchmark_csv
from genrec.evaluation.robustness import RobustnessRow, as_report, evaluate_robustness
from genrec.evaluation.robustness_tables import plot_robustness, robustness_table
from genrec.files import read_json, write_atomically
from genrec.hub import TRAINING_REPORT
from genrec.recommender import (
    CooccurrenceRecommender,
    PopularityRecommender,
    RecencyRecommender,
    Recommender,
    load_recommender,
)

QUICK_USERS = 300
PREPARED = "prepared"


class Entry(NamedTuple):
    """A recommender to be tried."""

    name: str
    recommender: Recommender
    config: str
    seed: int | str


def checkpoint_of(run: Path, protocol: str) -> Path:
    """Return a run's checkpoint of a protocol.

    Raises:
        FileNotFoundError: If there is none in the folder.
        ValueError: If its only checkpoint is of another protocol.
    """
    own, primary = run / protocol / "checkpoint", run / "checkpoint"
    folder = own if own.is_dir() else primary
    if not (folder / TRAINING_REPORT).is_file():
        raise FileNotFoundError(f"{run} holds no finished run: {folder / TRAINING_REPORT} is missing. `genrec run` it.")
    trained = read_json(folder / TRAINING_REPORT)["protocol"]
    if trained != protocol:
        raise ValueError(f"{run} was trained on the split {trained!r}, not {protocol!r}. Pass `--protocol {trained}`.")
    return folder


def entries_of(runs: Sequence[tuple[str, Path]], protocol: str, num_beams: int, device: str) -> list[Entry]:
    """Load each run's recommender, with the recipe and the seed that its training report names."""
    entries = []
    for name, run in runs:
        folder = checkpoint_of(run, protocol)
        facts = read_json(folder / TRAINING_REPORT)
        recommender = load_recommender(folder, num_beams=num_beams, device=device)
        entries.append(Entry(name, recommender, facts["name"], facts["seed"]))
    taken = [(entry.name, entry.config, entry.seed) for entry in entries]
    twice = next((key for key in taken if taken.count(key) > 1), None)
    if twice is not None:
        raise ValueError(
            f"{twice[0]!r} has two runs of the recipe {twice[1]!r} with seed {twice[2]}. Name one of them."
        )
    return entries


def shared_queries(runs: Sequence[tuple[str, Path]], protocol: str) -> Queries:
    """Return the test queries of the first run.

    Raises:
        ValueError: If another run asks other records.
    """
    first, *others = [(run, PreparedDataset.load(run / PREPARED).split(protocol).test) for _, run in runs]
    for run, queries in others:
        if not _is_same(first[1], queries):
            raise ValueError(
                f"{first[0]} and {run} ask different records. Run both on the same data, split and filters."
            )
    return first[1]


def _is_same(first: Queries, second: Queries) -> bool:
    pairs = zip((first.histories, first.targets), (second.histories, second.targets), strict=True)
    return all(
        np.array_equal(one.users, other.users)
        and np.array_equal(one.offsets, other.offsets)
        and np.array_equal(one.behaviors, other.behaviors)
        and np.array_equal(one.item_ids[one.items], other.item_ids[other.items])
        for one, other in pairs
    )


def quick_study() -> tuple[list[Entry], Queries]:
    """Return rules on a small market, and its test queries."""
    split = split_last_session(SyntheticMarket(num_users=QUICK_USERS).histories())
    rules: dict[str, Recommender] = {
        "recency": RecencyRecommender().fit(split.train),
        "co-occurrence": CooccurrenceRecommender().fit(split.train),
        "popularity": PopularityRecommender().fit(split.train),
    }
    return [Entry(name, rule, "market", 0) for name, rule in rules.items()], split.test


def write(rows: list[RobustnessRow], entry: Entry, csv: Path) -> None:
    """Write one recommender's figures."""
    update_benchmark_csv(csv, as_report(rows), config=entry.config, commit=commit() or "", seed=entry.seed)


def main(arguments: Iterable[str] | None = None) -> list[RobustnessRow]:
    """Try every recommender under every perturbation; return the rows."""
    given = _parser().parse_args(None if arguments is None else list(arguments))
    if given.quick == bool(given.runs):
        raise ValueError("Name runs as `NAME=FOLDER`, or pass `--quick` for rules on the market, not both.")
    runs = [_named(text) for text in given.runs]
    if given.quick:
        entries, queries = quick_study()
    else:
        queries = shared_queries(runs, given.protocol)
        entries = entries_of(runs, given.protocol, given.beams, given.device)
        prepared = PreparedDataset.load(runs[0][1] / PREPARED)
        entries += [Entry(name, fitted_rule(name, prepared, given.protocol), "rules", 0) for name in given.rules]
    if given.users and given.users < len(queries):
        queries = queries.select(np.sort(np.random.default_rng(0).choice(len(queries), given.users, replace=False)))
    name = given.name or ("market" if given.quick else runs[0][1].resolve().name)
    folder = given.output or (None if given.quick else Path(__file__).parent)
    behaviors = list(queries.targets.ladder.names) if given.all_behaviors else [queries.targets.ladder.target]
    settings = {"protocol": given.protocol, "k": 10, "seed": given.drop_seed, "behaviors": behaviors}
    settings["keeps_target_behavior"] = not given.drop_target_behavior
    rows: list[RobustnessRow] = []
    for entry in entries:
        own = evaluate_robustness(entry.recommender, queries, name=entry.name, **settings)
        rows += own
        if folder is not None:
            write(own, entry, folder / f"robustness_{name}.csv")
    _show(rows, behaviors, given.gain_of, None if folder is None else folder / f"robustness_{name}")
    return rows


def _show(rows: list[RobustnessRow], behaviors: list[str], gain_of: str | None, stem: Path | None) -> None:
    """Print the tables of the behaviors; write them and the target behavior's plot, if there is where."""
    tables = [f"Asked for {name}\n\n{robustness_table(rows, name, gain_of=gain_of)}" for name in behaviors]
    print("\n\n".join(tables))
    if stem is None:
        return
    with write_atomically(stem.with_suffix(".md")) as temporary:
        temporary.write_text("\n\n".join(tables) + "\n", encoding="utf-8")
    try:
        plot_robustness(rows, stem.with_suffix(".png"), behaviors[-1])
    except ImportError as error:
        print(f"no plot: {error}")


def _named(text: str) -> tuple[str, Path]:
    name, equals, folder = text.rpartition("=")
    if not equals or not name or not folder:
        raise ValueError(f"A run is written `NAME=FOLDER`, as in `gamer=runs/gamer`, got {text!r}.")
    return name, Path(folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="NAME=FOLDER")
    parser.add_argument("--protocol", default="last-session")
    parser.add_argument("--rules", nargs="*", default=[], help="rules beside the runs, such as recency")
    parser.add_argument("--gain-of", help="a model whose gain over the best of the others is shown")
    parser.add_argument("--all-behaviors", action="store_true", help="ask for every behavior, not the target alone")
    parser.add_argument(
        "--drop-target-behavior", action="store_true", help="session-items: also interactions of the target behavior"
    )
    parser.add_argument("--drop-seed", type=int, default=0, help="decides which interactions go")
    parser.add_argument("--users", type=int, help="at most so many users; all without it")
    parser.add_argument("--beams", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--name", help="of the files; the first run's folder without it")
    parser.add_argument("--output", type=Path, help="folder of the files; beside this script without it")
    parser.add_argument("--quick", action="store_true", help="rules on the synthetic market")
    return parser


if __name__ == "__main__":
    main()
