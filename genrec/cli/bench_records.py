"""What `genrec bench` writes beside each run, and whether a run that lies there is the one that is asked for."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from genrec.cli.build import data_fingerprint
from genrec.cli.recipe import Recipe
from genrec.files import read_json, write_json

RECORD_FILE = "bench.json"
ERROR_FILE = "error.txt"
LOG_FILE = "log.txt"
PATHS = ("interactions", "items")  # where a log lies says nothing about what it holds; its fingerprint does


@dataclass(frozen=True)
class BenchRun:
    """One recipe with one seed.

    Args:
        recipe: The recipe, with this run's seed and folder.
        commit: The commit that runs, or the version where there is no checkout.
        csv: The file that gets the figures.
        metrics: Which metrics of the report are written to it; None means the usual ones.
        tuned: Settings that a search chose, `section.key` -> value; they are part of the recipe already.
    """

    recipe: Recipe
    commit: str
    csv: Path
    metrics: Sequence[str] | None
    tuned: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.recipe.name}, seed {self.recipe.seed}"

    @property
    def record(self) -> Path:
        """The JSON file that says what the run was and what it took."""
        return self.recipe.folder / RECORD_FILE

    def facts(self) -> dict[str, Any]:
        """Return what a finished run must agree with to count as this one, as JSON.

        Raises:
            FileNotFoundError: If a file of the data does not exist.
        """
        facts = {
            "config": self.recipe.name,
            "model": self.recipe.evaluation.model_name,
            "seed": self.recipe.seed,
            "data": data_fingerprint(self.recipe),
            "settings": settings_of(self.recipe),
            "tuned": self.tuned,
        }
        loaded: dict[str, Any] = json.loads(json.dumps(facts, default=str))
        return loaded


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """Return the hyper-parameters of a recipe: all sections that change a figure, without seed and places.

    >>> settings_of(Recipe("shop", output="a")) == settings_of(Recipe("shop", seed=1, output="b"))
    True
    """
    sections = asdict(recipe)
    for name in ("name", "seed", "output", "hub"):
        del sections[name]
    sections["data"] = {key: value for key, value in recipe.data.items() if key not in PATHS}
    del sections["evaluation"]["csv"]
    return sections


def read_record(run: BenchRun) -> dict[str, Any] | None:
    """Return what lies in the run's folder; None if nothing does.

    Raises:
        ValueError: If something lies there that `genrec bench` did not write.
    """
    if run.record.is_file():
        found: dict[str, Any] = read_json(run.record)
        return found
    own = (ERROR_FILE, LOG_FILE)
    if run.recipe.folder.is_dir() and any(path.name not in own for path in run.recipe.folder.iterdir()):
        raise ValueError(
            f"{run.recipe.folder} has no {RECORD_FILE}, so nobody knows which commit made what lies there. "
            "Choose another `--output`, or move the folder away."
        )
    return None


def check_commit(run: BenchRun, allow_other_commit: bool) -> None:
    """Refuse a run folder that another commit wrote, unless that is allowed.

    Raises:
        ValueError: If the folder is of another commit.
    """
    found = read_record(run)
    if found is not None and found["commit"] != run.commit and not allow_other_commit:
        raise ValueError(
            f"{run.recipe.folder} was written by commit {found['commit']}, and this is {run.commit}. Choose another "
            "`--output`, or mix them with `--allow-other-commit`. Nothing was changed."
        )


def check_siblings(runs: Sequence[BenchRun]) -> None:
    """Refuse runs beside finished seeds of other settings: all of a configuration go into one mean.

    Seeds that are among the runs do not count, for they are run again. The data of a market is among its settings.

    Raises:
        ValueError: If there is such a seed.
        FileNotFoundError: If a file of the data does not exist.
    """
    planned = {run.record for run in runs}
    for run in runs:
        beside = sorted(set(run.recipe.folder.parent.glob(f"seed-*/{RECORD_FILE}")) - planned)
        finished = [found for found in map(read_json, beside) if found["finished"]]
        own = run.facts() if finished else {}
        for found in finished:
            others = _different(own["settings"], found["settings"])
            if run.recipe.market is None and own["data"] != found["data"]:
                others.append("the data")
            if others:
                seeds = sorted({other.recipe.seed for other in runs} | {each["seed"] for each in finished})
                raise ValueError(
                    f"{run} differs from the finished seed {found['seed']} in {', '.join(others)}, and tables take one "
                    f"mean over all seeds of {run.recipe.name}. Give the new settings a name of their own, as in "
                    "`RECIPE+mine.yaml`; choose another `--output` and another `--csv`; or run all these seeds again, "
                    f"with `--seeds {','.join(map(str, seeds))}`. Nothing was changed."
                )


def _different(settings: dict[str, Any], others: dict[str, Any]) -> list[str]:
    """Return the names of the settings that differ.

    >>> _different({"model": {"dropout": 0.5}, "hub": None}, {"model": {}, "hub": None})
    ['model.dropout']
    """
    own, found = (
        {
            (name, key): value
            for name, section in each.items()
            for key, value in (section.items() if isinstance(section, dict) else [("", section)])
        }
        for each in (settings, others)
    )
    absent = object()
    names = [name for name in {**own, **found} if own.get(name, absent) != found.get(name, absent)]
    return [f"{section}.{key}".removesuffix(".") for section, key in names]


def is_finished(run: BenchRun) -> bool:
    """Say whether the folder holds this very run, done: same data, settings and seed.

    The commit was checked before: one that is allowed counts.
    """
    found = read_record(run)
    if found is None or not found.get("finished") or not (run.recipe.folder / "report.json").is_file():
        return False
    return all(found.get(name) == value for name, value in run.facts().items())


def begin(run: BenchRun) -> dict[str, Any]:
    """Write the record of a run that starts, and return it; earlier commits of the folder stay in it."""
    found = read_record(run) or {}
    earlier = [*found.get("earlier_commits", []), *([found["commit"]] if found else [])]
    record = {
        **run.facts(),
        "commit": run.commit,
        "earlier_commits": sorted(set(earlier) - {run.commit}),
        "finished": None,
        "peak_mb": found.get("peak_mb", 0),
    }
    write_json(run.record, record)
    return record


def seeds_in(text: str) -> list[int]:
    """Read `0,1,2`.

    Raises:
        ValueError: If it is no list of whole numbers from 0.

    >>> seeds_in("0,2")
    [0, 2]
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise ValueError(f"`--seeds` takes whole numbers from 0, separated by commas, like 0,1,2; got {text!r}.")
    return [int(part) for part in parts]
