"""`genrec init`: look at a table, guess its columns and its ladder, and write a recipe that runs."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

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
  interactions: {table}
{items}  behaviors: {ladder}  # weakest to strongest; the last one is predicted
  user_column: {columns.user}
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
        behaviors: The ladder, weakest first; None guesses it, and asks whether it is right if it can.
        items: A table of items, whose titles then make the codes.
        recipe: Where to write; None puts it beside the current folder as `<table's name>.yaml`.
        ask: Called with a question and `default=`, as `typer.prompt`; None asks nothing.
        say: Gets the lines that are printed.

    Raises:
        FileNotFoundError: If a table does not exist.
        ValueError: If no column looks like users, items or behaviors, the ladder leaves out a behavior, or the recipe
            exists already.
    """
    path = recipe or Path(f"{table.name.split('.')[0]}.yaml")
    if path.exists():
        raise ValueError(f"{path} exists already. Remove it, or name another file with `--recipe`.")
    log = read_table(table)
    columns = guess_columns(log.slice(0, SAMPLE_ROWS))
    for role in ("user", "item", "behavior", "time"):
        say(f"{role:>9}: {getattr(columns, role)}")
    ladder = _ladder(log, columns, behaviors, ask, say)
    with write_atomically(path) as temporary:
        temporary.write_text(_recipe_text(table, path, items, log, columns, ladder), encoding="utf-8")
    return path


def _ladder(
    log: pa.Table, columns: Columns, behaviors: str | None, ask: Callable[..., str] | None, say: Callable[[str], None]
) -> BehaviorLadder:
    counted = pc.value_counts(log[columns.behavior].cast(pa.string())).to_pylist()
    counts = {entry["values"]: entry["counts"] for entry in counted}
    say("behaviors: " + ", ".join(f"{name} ({count:,})" for name, count in counts.items()))
    if behaviors is None:
        guess, is_sure = guess_ladder(counts)
        say(f"   ladder: {' < '.join(guess)}" + ("" if is_sure else "  (by their counts: check it)"))
        behaviors = ",".join(guess)
        if ask is not None:
            behaviors = ask("Behaviors, weakest to strongest", default=behaviors)
    ladder = BehaviorLadder.parse(behaviors)
    missing = [name for name in counts if name not in ladder.names]
    if missing:
        raise ValueError(
            f"The ladder {ladder} leaves out {missing[0]!r}, which the log has {counts[missing[0]]:,} times. Add it, "
            "or set `data.other_behaviors: drop` in the recipe afterwards."
        )
    return ladder


def _recipe_text(
    table: Path, recipe: Path, items: Path | None, log: pa.Table, columns: Columns, ladder: BehaviorLadder
) -> str:
    unit = "s" if columns.time is None else time_unit(log[columns.time].slice(0, SAMPLE_ROWS))
    is_small = log.num_rows < SMALL_LOG
    return TEMPLATE.format(
        table=table,
        recipe=recipe,
        name=recipe.stem,
        items=f"  items: {items}\n" if items else "",
        ladder=ladder,
        columns=columns,
        unit=f"  time_unit: {unit}\n" if unit != "s" else "",
        embedder="tfidf" if items else "collaborative",
        model="gamer-tiny" if is_small else "gamer-small" if log.num_rows < LARGE_LOG else "gamer-base",
        epochs=30 if is_small else 20,
    )
