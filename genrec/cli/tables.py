"""Tables from files, with numbers as numbers."""

from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from genrec.data.readers import INTEGER_PATTERN, open_source

PADDED_PATTERN = r"^[+-]?0[0-9]"


def read_table(path: Path, *, fractions_in: Collection[str] | None = None) -> pa.Table:
    """Read CSV, parquet or JSON lines; columns of a CSV file become numbers where every value is one.

    Args:
        path: The file.
        fractions_in: Names of the CSV columns that may become numbers with fractions, None for any. All others become
            integers or stay text, which is how a log's ids are read.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is of another kind or corrupt.
    """
    source = open_source(path)
    table = source.read(None)
    return with_numbers(table, fractions_in=fractions_in) if source.is_text else table


def with_numbers(table: pa.Table, *, fractions_in: Collection[str] | None = None) -> pa.Table:
    """Return a table whose text columns are numbers where every value is one; `007` stays text.

    Example:
        >>> columns = pa.table({"a": ["1", "2"], "b": ["007", "2"], "c": ["1.5", "2"]})
        >>> with_numbers(columns).schema.types
        [DataType(int64), DataType(string), DataType(double)]
        >>> with_numbers(columns, fractions_in=["b"]).schema.types
        [DataType(int64), DataType(string), DataType(string)]
    """
    return pa.table(
        {name: _as_number(table[name], fractions_in is None or name in fractions_in) for name in table.column_names}
    )


def _as_number(column: pa.ChunkedArray, may_have_fractions: bool) -> pa.ChunkedArray:
    if not pa.types.is_string(column.type):
        return column
    if pc.all(pc.match_substring_regex(column, INTEGER_PATTERN)).as_py():
        return column.cast(pa.int64())
    if not may_have_fractions or pc.any(pc.match_substring_regex(column, PADDED_PATTERN)).as_py():
        return column
    try:
        return column.cast(pa.float64())
    except pa.ArrowInvalid:
        return column
