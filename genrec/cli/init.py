"""`genrec init`: look at a table, guess its columns and its ladder, and write a recipe that runs."""

import math
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from genrec.cli.guess import Columns, guess_columns, guess_ladder, time_unit
from genrec.cli.tables import read_table
from genrec.data import BehaviorLadder
from genrec.files import write_atomically

SAMPLE_ROWS = 20_000
SMALL_LOG, LARGE_LOG = 20_000, 2_000_000
TEMPLATE = """\
# Written by `genrec init {table}`. Every line may be changed; `genrec run {recipe} --check` checks it.
name: {name}
seed: 0
data:
  interactions: {interactions}
{items}  behaviors: {ladder}  # weakest to strongest; the last one is predicted
{others}  user_column: {columns.user}
  item_column: {columns.item}
  behavior_column: {columns.behavior}
  time_column: {columns.time}
{unit}  sessions: gap
  gap_minutes: 30
embedder:
  name: {embedder}
item_tokenizer:
  name: rqkmeans
  codebook_sizes: auto
model:
  preset: {model}
  max_history_items: 50
training:
  preset: small
  num_train_epochs: {epochs}
evaluation:
  protocols: [last-session]
  num_beams: 20
"""


def write_recipe(
    table: Path,
    *,
    behaviors: str | None,
    items: Path | None,
    recipe: Path | None,
    ask: Callable[..., str] | None,
    say: Callable[[str], None],
) -> Path:
    """Write a recipe for a log and return its path.

    Args:
        table: The log: CSV, parquet or JSON lines.
        behaviors: The ladder, weakest first; None guesses it, and asks whether it is right if it can. What it leaves
            out of the log's behaviors, the recipe drops.
        items: A table of items, whose titles then make the codes.
        recipe: Where to write; None puts it beside the current folder as `<table's name>.yaml`.
        ask: Called with a question and `default=`, as `typer.prompt`; None asks nothing.
        say: Gets the lines that are printed.

    Raises:
        FileNotFoundError: If a table does not exist.
        ValueError: If no column looks like users, items or behaviors, the ladder names a behavior that the log lacks
            and leaves out another, or the recipe exists already.
    """
    path = recipe or Path(f"{table.name.split('.')[0]}.yaml")
    if path.exists():
        raise ValueError(f"{path} exists already. Remove it, or name another file with `--recipe`.")
    if items is not None and not items.exists():
        raise FileNotFoundError(f"There is no file {items}. Check `--items`.")
    log = read_table(table)
    columns = guess_columns(log.slice(0, SAMPLE_ROWS))
    for role in ("user", "item", "behavior", "time"):
        say(f"{role:>9}: {getattr(columns, role)}")
    ladder, left_out = _ladder(log, columns, behaviors, ask, say)
    text = _recipe_text(table, path, items, log, columns, ladder, left_out)
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _ladder(
    log: pa.Table, columns: Columns, behaviors: str | None, ask: Callable[..., str] | None, say: Callable[[str], None]
) -> tuple[BehaviorLadder, list[str]]:
    """Return the ladder, and the log's behaviors that it leaves out."""
    counted = pc.value_counts(log[columns.behavior].cast(pa.string())).to_pylist()
    counts = {entry["values"]: entry["counts"] for entry in counted}
    num_without = counts.pop(None, 0) + counts.pop("", 0)
    say("behaviors: " + ", ".join(f"{name} ({count:,})" for name, count in counts.items()))
    if num_without:
        say(f"           {num_without:,} rows have none: remove them, `genrec run` refuses them")
    if behaviors is None:
        guess, is_sure = guess_ladder(counts)
        say(f"   ladder: {' < '.join(guess)}" + ("" if is_sure else "  (by their counts: check it)"))
        behaviors = ",".join(guess)
        if ask is not None:
            behaviors = ask("Behaviors, weakest to strongest", default=behaviors)
    ladder = BehaviorLadder.parse(behaviors)
    return ladder, _left_out(ladder, counts, say)


def _left_out(ladder: BehaviorLadder, counts: dict[str, int], say: Callable[[str], None]) -> list[str]:
    """Return the behaviors that the ladder leaves out, and say that they will be.

    Raises:
        ValueError: If one of the ladder's is not in the log either, so that it may be meant for one left out.
    """
    left_out = [name for name in counts if name not in ladder.names]
    strange = [name for name in ladder.names if name not in counts]
    if left_out and strange:
        raise ValueError(
            f"The ladder {ladder} leaves out {left_out[0]!r}, which the log has {counts[left_out[0]]:,} times, and "
            f"names {strange[0]!r}, which the log lacks. Write it as the log does, or take it out of the ladder."
        )
    if left_out:
        say(f" left out: {', '.join(left_out)}  (`data.other_behaviors: drop` in the recipe)")
    return left_out


def _recipe_text(
    table: Path,
    recipe: Path,
    items: Path | None,
    log: pa.Table,
    columns: Columns,
    ladder: BehaviorLadder,
    left_out: list[str],
) -> str:
    unit = "s" if columns.time is None else time_unit(log[columns.time].slice(0, SAMPLE_ROWS))
    is_small = log.num_rows < SMALL_LOG
    return TEMPLATE.format(
        table=table,
        recipe=recipe,
        name=_scalar(recipe.stem),
        interactions=_scalar(str(table)),
        items=f"  items: {_scalar(str(items))}\n" if items else "",
        ladder=_scalar(str(ladder)),
        others="  other_behaviors: drop\n" if left_out else "",
        columns=Columns(*map(_scalar, astuple(columns))),
        unit=f"  time_unit: {unit}\n" if unit != "s" else "",
        embedder="tfidf" if items else "collaborative",
        model="gamer-tiny" if is_small else "gamer-small" if log.num_rows < LARGE_LOG else "gamer-base",
        epochs=30 if is_small else 20,
    )


def _scalar(text: str) -> str:
    """Write a text as YAML reads it back, in quotes where it would be something else.

    >>> _scalar("log.csv"), _scalar("2024"), _scalar("no"), _scalar("event: type")
    ('log.csv', "'2024'", "'no'", "'event: type'")
    """
    return yaml.safe_dump(text, allow_unicode=True, width=math.inf).removesuffix("...\n").rstrip("\n")
