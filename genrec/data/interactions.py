"""The interaction log: a table of who did what with which item when, read from any source and checked before any work.

A log keeps every row: the same user, item, behavior and time twice are two interactions, because a repeated view or
purchase is something the user did. Its order is user, then time, then source row, whatever engine computes on it.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ibis
import numpy as np
import pyarrow as pa

from genrec.data.behaviors import BehaviorLadder
from genrec.data.catalog import Catalog
from genrec.data.gamer_layout import GamerLayout, ReleasedCodes, is_gamer_layout, read_gamer_layout
from genrec.data.log_checks import check_behaviors, check_no_gaps, check_time_type, check_times
from genrec.data.readers import Source, id_column, open_source, text_column
from genrec.data.times import MICROSECONDS_PER_UNIT, TimeColumn, zone_info

if TYPE_CHECKING:
    import ibis.expr.types as ir

DEFAULT_COLUMNS = {"user_id": "user_id", "item_id": "item_id", "behavior": "behavior", "timestamp": "timestamp"}
ROLES = (*DEFAULT_COLUMNS, "session")
OTHER_BEHAVIORS = ("error", "drop")


@dataclass(frozen=True, eq=False)
class InteractionLog:
    """A checked log.

    Args:
        table: An Ibis table with the columns `row` (position in the source, int64), `user_id`, `item_id` (int64 or
            text), `behavior` (text), `time` (microseconds since 1970, UTC, int64) and, if the source has one,
            `session` (text).
        ladder: The behaviors that count, weakest first. Rows of other behaviors are in `table` only under
            `other_behaviors="drop"`; `prepare` leaves them out and counts them.
        source_name: What the log was read from.
        fingerprint: A content hash of the source.
        has_times: Whether the source has times; without them `time` is 0 and the order is that of the source.
        catalog: The catalog that came with the log (released GAMER layout), or None.
        released_codes: The item codes that came with the log (released GAMER layout), or None.
    """

    table: "ir.Table"
    ladder: BehaviorLadder
    source_name: str
    fingerprint: str
    has_times: bool = True
    catalog: Catalog | None = None
    released_codes: ReleasedCodes | None = None

    @classmethod
    def read(
        cls,
        source: Any,
        *,
        behaviors: str | Sequence[str] | BehaviorLadder | None = None,
        columns: Mapping[str, str] | None = None,
        behavior_names: Mapping[Any, str] | None = None,
        other_behaviors: str = "error",
        time_unit: str = "s",
        time_zone: str = "UTC",
        id_type: str = "auto",
        delimiter: str | None = None,
    ) -> "InteractionLog":
        """Read and check a log.

        Args:
            source: A path (`.parquet`, `.csv`, `.tsv`, `.jsonl`, `.json`, also compressed), several paths, a glob
                pattern, a folder of parquet files, a folder in the released GAMER layout, an Arrow table, a pandas or
                polars frame, a `datasets.Dataset`, or a mapping of columns.
            behaviors: The behavior ladder, weakest first: `"view,cart,buy"`, ties as `"view,favorite=collect,buy"`.
                None takes the ladder that the released GAMER layout brings.
            columns: The source's names of `user_id`, `item_id`, `behavior`, `timestamp`, and of `session` if the
                source has sessions to be used. Left out = the same name; no session column.
            behavior_names: What the source calls behaviors -> what the ladder calls them (`{"1": "view"}`).
            other_behaviors: What to do with behaviors that the ladder lacks: `"error"` refuses the log, `"drop"`
                keeps them out of everything later.
            time_unit: What numbers in the time column count since 1970: `"s"`, `"ms"`, `"us"` or `"ns"`. Text is read
                as numbers if its first value is one, else as ISO date-times.
            time_zone: IANA zone of date-times that name none.
            id_type: `"auto"` keeps ids as the source has them (CSV ids that are all integers become integers);
                `"string"` makes them text.
            delimiter: What separates the values of a CSV file; None finds out from its first line.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If a column is missing or of the wrong type, an id, behavior or time is missing, a behavior
                unknown, a time unreadable, or there is no row. The message names the column, the first offending row
                (counted from 0) and the remedy.

        Example:
            >>> log = InteractionLog.read(
            ...     {"user_id": [1, 1], "item_id": ["a", "b"], "behavior": ["view", "buy"], "timestamp": [0, 60]},
            ...     behaviors="view,buy",
            ... )
            >>> len(log), log.ladder.target
            (2, 'buy')
        """
        _check_settings(columns, other_behaviors, time_unit, time_zone)
        layout = read_gamer_layout(source) if is_gamer_layout(source) else None
        if layout is None:
            opened, names = open_source(source, delimiter=delimiter), {**DEFAULT_COLUMNS, **(columns or {})}
        else:
            opened, names = _open_layout(layout, Path(source)), _layout_columns(layout, columns)
            behaviors = layout.ladder if behaviors is None else behaviors
        raw = _read_columns(opened, names)
        times = TimeColumn.of(raw[names["timestamp"]], time_unit, time_zone) if "timestamp" in names else None
        staged = _stage(raw, names, opened, id_type, times)
        backend = ibis.duckdb.connect()
        table = _rename_behaviors(ibis.memtable(staged), behavior_names)
        ladder = _ladder_of(table, backend, behaviors, opened)
        if other_behaviors == "error":
            check_behaviors(table, backend, ladder, names["behavior"], opened)
        table = backend.create_table("log", _with_time(table, backend, times))
        if times is not None:
            check_times(table, raw[names["timestamp"]], times, names["timestamp"], opened)
        return cls(
            table=table,
            ladder=ladder,
            source_name=opened.name,
            fingerprint=opened.fingerprint(raw),
            has_times=times is not None,
            catalog=None if layout is None else layout.catalog,
            released_codes=None if layout is None else layout.codes,
        )

    def __len__(self) -> int:
        return int(self.table.count().to_pyarrow().as_py())

    @property
    def has_sessions(self) -> bool:
        """Whether the source's own sessions were read."""
        return "session" in self.table.columns

    def to_arrow(self) -> pa.Table:
        """Return the log's rows in source order."""
        return self.table.order_by("row").to_pyarrow()


def _check_settings(columns: Mapping[str, str] | None, other_behaviors: str, time_unit: str, time_zone: str) -> None:
    for role in columns or {}:
        if role not in ROLES:
            close = difflib.get_close_matches(role, ROLES, n=1) or ["user_id"]
            raise ValueError(
                f"`columns` has the unknown key {role!r}. Did you mean {close[0]!r}? The keys are: {', '.join(ROLES)}."
            )
    if other_behaviors not in OTHER_BEHAVIORS:
        raise ValueError(f"`other_behaviors` must be 'error' or 'drop', got {other_behaviors!r}.")
    if time_unit not in MICROSECONDS_PER_UNIT:
        raise ValueError(f"`time_unit` must be one of {', '.join(MICROSECONDS_PER_UNIT)}, got {time_unit!r}.")
    zone_info(time_zone)


def _open_layout(layout: GamerLayout, folder: Path) -> Source:
    return Source(
        str(folder), layout.events.column_names, lambda columns: layout.events.select(list(columns or [])), layout.files
    )


def _layout_columns(layout: GamerLayout, columns: Mapping[str, str] | None) -> dict[str, str]:
    renamed = {role: name for role, name in (columns or {}).items() if role != name}
    if renamed:
        raise ValueError(f"The released GAMER layout has fixed columns, but `columns` renames {renamed}. Leave it out.")
    return {name: name for name in layout.events.column_names}


def _read_columns(source: Source, names: Mapping[str, str]) -> pa.Table:
    """Return the log's columns, each with a value in every row."""
    source.require(names)
    raw = source.read(list(dict.fromkeys(names.values())))
    if raw.num_rows == 0:
        raise ValueError(f"There is no row in {source.name}. A log needs at least one interaction.")
    check_no_gaps(raw, names, source)
    if "timestamp" in names:
        check_time_type(raw[names["timestamp"]], names["timestamp"], source)
    return raw


def _stage(raw: pa.Table, names: Mapping[str, str], source: Source, id_type: str, times: TimeColumn | None) -> pa.Table:
    """Return the columns under our names, with their source row and one type each."""
    staged = {
        "row": pa.array(np.arange(raw.num_rows, dtype=np.int64)),
        "user_id": id_column(raw[names["user_id"]], names["user_id"], source, id_type),
        "item_id": id_column(raw[names["item_id"]], names["item_id"], source, id_type),
        "behavior": text_column(raw[names["behavior"]], names["behavior"], source),
    }
    if "session" in names:
        staged["session"] = text_column(raw[names["session"]], names["session"], source)
    if times is not None:
        staged["time"] = times.values
    return pa.table(staged)


def _rename_behaviors(table: "ir.Table", names: Mapping[Any, str] | None) -> "ir.Table":
    if not names:
        return table
    return table.mutate(
        behavior=table.behavior.cases(*[(str(old), new) for old, new in names.items()], else_=table.behavior)
    )


def _ladder_of(
    table: "ir.Table", backend: Any, behaviors: str | Sequence[str] | BehaviorLadder | None, source: Source
) -> BehaviorLadder:
    if behaviors is not None:
        return BehaviorLadder.parse(behaviors)
    counts = table.behavior.value_counts(name="events").order_by(ibis.desc("events"))
    found = [f"{row['behavior']} ({row['events']})" for row in backend.to_pyarrow(counts.limit(20)).to_pylist()]
    raise ValueError(
        f"`behaviors` is missing. There are, in {source.name}: {', '.join(found)}. Write them weakest first, the one "
        "to predict last, for example `view,cart,buy`."
    )


def _with_time(table: "ir.Table", backend: Any, times: TimeColumn | None) -> "ir.Table":
    if times is None:
        return table.mutate(time=ibis.literal(0, "int64"))
    return table.mutate(time=times.microseconds(table.time, backend))
