"""A table written part by part, so that no more than one part is in memory; the file appears whole or not at all."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from genrec.files import write_atomically

OUTPUT_SUFFIXES = (".csv", ".parquet", ".jsonl")

Write = Callable[[pa.Table], None]


@contextmanager
def open_table_writer(path: Path, schema: pa.Schema) -> Iterator[Write]:
    """Give a function that adds rows to a table of CSV, parquet or JSON lines, by the suffix.

    Args:
        path: The file; it is replaced when the block succeeds.
        schema: The columns; parts are cast to it.

    Raises:
        ValueError: If the suffix is none of these.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "two.jsonl"
        >>> with open_table_writer(path, pa.schema({"a": pa.int64()})) as write:
        ...     write(pa.table({"a": [1]}))
        ...     write(pa.table({"a": [2]}))
        >>> path.read_text().split()
        ['{"a":', '1}', '{"a":', '2}']
    """
    if path.suffix not in OUTPUT_SUFFIXES:
        raise ValueError(f"A table is written as one of {', '.join(OUTPUT_SUFFIXES)}, got {path}. Rename it.")
    with write_atomically(path) as temporary:
        if path.suffix == ".jsonl":
            with temporary.open("w", encoding="utf-8") as file:
                yield lambda table: file.writelines(
                    json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist()
                )
            return
        kind = pyarrow.parquet.ParquetWriter if path.suffix == ".parquet" else pyarrow.csv.CSVWriter
        with kind(str(temporary), schema) as writer:
            yield lambda table: writer.write_table(table.cast(schema))
