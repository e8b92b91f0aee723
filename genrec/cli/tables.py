"""Tables as files: read with numbers as numbers, written whole or not at all."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from genrec.data.readers import INTEGER_PATTERN, open_source
from genrec.files import write_atomically

OUTPUT_SUFFIXES = (".csv", ".parquet", ".jsonl")


def read_table(path: Path) -> pa.Table:
    """Read CSV, parquet or JSON lines; columns of a CSV file become numbers where every value is one.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is of another kind or corrupt.
    """
    source = open_source(path)
    table = source.read(None)
    return with_numbers(table) if source.is_text else table


def with_numbers(table: pa.Table) -> pa.Table:
    """Return a table whose text columns are numbers where every value is one; `007` stays text.

    Example:
        >>> with_numbers(pa.table({"a": ["1", "2"], "b": ["007", "2"], "c": ["1.5", "2"]})).schema.types
        [DataType(int64), DataType(string), DataType(double)]
    """
    return pa.table({name: _as_number(table[name]) for name in table.column_names})


def _as_number(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pa.types.is_string(column.type):
        return column
    if pc.all(pc.match_substring_regex(column, INTEGER_PATTERN)).as_py():
        return column.cast(pa.int64())
    if pc.any(pc.match_substring_regex(column, r"^[+-]?0[0-9]")).as_py():
        return column
    try:
        return column.cast(pa.float64())
    except pa.ArrowInvalid:
        return column


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table as CSV, parquet or JSON lines, by the suffix, atomically.

    Raises:
        ValueError: If the suffix is none of these.
    """
    if path.suffix not in OUTPUT_SUFFIXES:
        raise ValueError(f"A table is written as one of {', '.join(OUTPUT_SUFFIXES)}, got {path}. Rename it.")
    with write_atomically(path) as temporary:
        if path.suffix == ".parquet":
            pyarrow.parquet.write_table(table, temporary)
        elif path.suffix == ".csv":
            pyarrow.csv.write_csv(table, temporary)
        else:
            lines = (json.dumps(row, ensure_ascii=False) for row in table.to_pylist())
            temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
