"""Checks of a log's values: each names the column, the first offending row and the remedy."""

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from genrec.data.behaviors import BehaviorLadder
from genrec.data.readers import Source, plain_column
from genrec.data.times import LARGEST_SECONDS, MICROSECONDS, MICROSECONDS_PER_UNIT, TimeColumn

if TYPE_CHECKING:
    import ibis.expr.types as ir


def check_no_gaps(table: pa.Table, names: Mapping[str, str], source: Source) -> None:
    """Refuse missing values (nulls, NaN, empty text) in the log's columns.

    Raises:
        ValueError: Naming the column and the first row without a value.
    """
    for name in dict.fromkeys(names.values()):
        row = _first_gap(table[name])
        if row is not None:
            raise ValueError(
                f"Column `{name}` is empty in {source.where(row)}. Every interaction needs a value there: fill it in "
                "or leave the row out."
            )


def _first_gap(column: pa.ChunkedArray) -> int | None:
    column = plain_column(column)
    missing = pc.is_null(column, nan_is_null=pa.types.is_floating(column.type))
    if pa.types.is_string(column.type):
        missing = pc.or_(missing, pc.fill_null(pc.equal(column, ""), False))
    row = pc.index(missing, True).as_py()
    return None if row < 0 else row


def check_time_type(column: pa.ChunkedArray, name: str, source: Source) -> None:
    """Refuse a time column that can hold no times, by which the log could not be sorted.

    Raises:
        ValueError: Naming the column, its type and the value of row 0.
    """
    kind = plain_column(column).type
    if pa.types.is_duration(kind):
        raise ValueError(
            f"Column `{name}` of {source.name} has the type {kind} (row 0: {column[0].as_py()!r}), but a time is a "
            "moment. Add the moment from which the durations count."
        )
    is_binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    if pa.types.is_nested(kind) or pa.types.is_boolean(kind) or is_binary:
        raise ValueError(
            f"Column `{name}` of {source.name} has the type {kind} (row 0: {column[0].as_py()!r}), but times are "
            "numbers, date-times or text. Convert it, or name another column."
        )


def check_behaviors(table: "ir.Table", backend: Any, ladder: BehaviorLadder, name: str, source: Source) -> None:
    """Refuse behaviors that the ladder lacks.

    Raises:
        ValueError: Naming the first row with such a behavior and all behaviors of the log.
    """
    unknown = table.filter(table.behavior.notin(list(ladder.names))).order_by("row").limit(1)
    rows = backend.to_pyarrow(unknown.select("row", "behavior")).to_pylist()
    if not rows:
        return
    found = sorted(backend.to_pyarrow(table.select("behavior").distinct())["behavior"].to_pylist())
    close = difflib.get_close_matches(rows[0]["behavior"], ladder.names, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    raise ValueError(
        f"Column `{name}` has the unknown behavior {rows[0]['behavior']!r} in {source.where(rows[0]['row'])}; the "
        f"ladder `behaviors` has: {', '.join(ladder.names)}. {hint}The log has: {', '.join(found[:20])}. Add it to "
        "`behaviors`, rename it with `behavior_names`, or leave all others out with `other_behaviors: drop`."
    )


def check_times(table: "ir.Table", written: pa.ChunkedArray, times: TimeColumn, name: str, source: Source) -> None:
    """Refuse times that could not be read, by which the log could not be sorted.

    Args:
        table: The log with `row` and `time`, null where the time could not be read.
        written: The time column as the source has it.
        times: How it was read.
        name: Its name.
        source: Where it comes from.

    Raises:
        ValueError: Naming the first such row and its value.
    """
    row = table.filter(table.time.isnull()).row.min().to_pyarrow().as_py()
    if row is None:
        return
    value = written[row].as_py()
    raise ValueError(f"Column `{name}` holds {value!r} in {source.where(row)}, {_why_no_time(value, times)}")


def _why_no_time(value: Any, times: TimeColumn) -> str:
    if times.kind != "number":
        return (
            "which is no ISO date-time such as '2017-11-25 08:30:00', or lies after the year 2286. Write all times "
            "that way, or as numbers."
        )
    try:
        seconds = abs(float(value)) * MICROSECONDS_PER_UNIT[times.unit] / MICROSECONDS
    except ValueError:
        return f"which is no number of {times.unit!r} as in row 0. Write all times the same way."
    if not seconds < float("inf"):
        return "by which a log cannot be sorted. Give a finite number, or leave the row out."
    finer = {"s": "ms", "ms": "us", "us": "ns"}.get(times.unit, "ns")
    return (
        f"which as {times.unit!r} lies centuries away (more than {LARGEST_SECONDS} seconds). If the log counts a finer "
        f"unit, set `time_unit: {finer}`."
    )
