"""Tables from files, with numbers as numbers."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from genrec.data.readers import INTEGER_PATTERN, open_source


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
