"""Sources of tables: files and in-memory frames, opened alike, so that a fault is reported in the source's own terms.

A source is opened cheaply first (its columns are known, nothing is read), then read into an Arrow table whose row
order is the source's row order. CSV values arrive as text and JSON text stays text, so that no id is bent and no time
loses its zone by type guessing.
"""

import difflib
import glob
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from genrec.files import fingerprint

INTEGER_PATTERN = r"^(0|-?[1-9][0-9]{0,17})$"
DELIMITERS = ",\t;|"
BYTE_ORDER_MARK = "\ufeff"
UNREADABLE = (pa.ArrowException, OSError, UnicodeDecodeError)
BLOCK_BYTES = 1 << 24  # a row may be this long
CSV_SUFFIXES = (".csv", ".tsv", ".txt")
JSON_SUFFIXES = (".jsonl", ".json", ".ndjson")
COMPRESSION_SUFFIXES = (".gz", ".bz2", ".zst")


@dataclass(frozen=True)
class Source:
    """A table that was opened, not yet read.

    Args:
        name: What to call it in messages.
        column_names: The columns it has.
        read: Reads the named columns (None: all), rows in source order.
        files: The files behind it, none for a table in memory.
        first_line: The line of a text file that holds row 0, None if rows have no line number.
        is_text: Whether every value comes as text and types must be found out (CSV).
    """

    name: str
    column_names: list[str]
    read: Callable[[Sequence[str] | None], pa.Table]
    files: tuple[Path, ...] = ()
    first_line: int | None = None
    is_text: bool = False

    def where(self, row: int) -> str:
        """Say where a row is, for people: rows count from 0, a header is no row."""
        if self.first_line is None:
            return f"row {row} (counted from 0) of {self.name}"
        return f"row {row} (counted from 0; line {row + self.first_line}) of {self.name}"

    def require(self, columns: Mapping[str, str]) -> None:
        """Refuse the source if a column is missing.

        Args:
            columns: What the column is for -> its name.

        Raises:
            ValueError: Naming the missing column and the nearest one that exists.
        """
        repeated = [name for name in columns.values() if self.column_names.count(name) > 1]
        if repeated:
            raise ValueError(f"There are several columns `{repeated[0]}` in {self.name}. Rename all but one.")
        for role, name in columns.items():
            if name not in self.column_names:
                close = difflib.get_close_matches(name, self.column_names, n=1, cutoff=0.5)
                hint = f"Did you mean {close[0]!r}? " if close else ""
                purpose = "" if role == name else f" for the {role}"
                raise ValueError(
                    f"There is no column `{name}`{purpose} in {self.name}. {hint}Its columns are: "
                    f"{', '.join(self.column_names)}. Name the right one in the column settings."
                )

    def fingerprint(self, table: pa.Table) -> str:
        """Return a content hash: of the files, or of the table that was read from memory."""
        return fingerprint(*self.files) if self.files else _table_fingerprint(table)


def open_source(source: Any, *, delimiter: str | None = None) -> Source:
    """Open a path, a list of paths, a folder of parquet files, a glob pattern or a table in memory.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the kind of source is unknown or a file is corrupt.
    """
    if isinstance(source, (str, Path)):
        return _open_files(_expand(str(source)), delimiter)
    if isinstance(source, Sequence) and source and all(isinstance(part, (str, Path)) for part in source):
        return _open_files([path for part in source for path in _expand(str(part))], delimiter)
    return _open_memory(source)


def id_column(column: pa.ChunkedArray, name: str, source: Source, id_type: str) -> pa.ChunkedArray:
    """Return ids as int64 or string.

    Args:
        column: The values as read.
        name: The column's name, for messages.
        source: Where it comes from.
        id_type: `"auto"`: integers stay integers, text stays text, and text of a CSV file becomes integers if every
            value is one. `"string"`: always text.

    Raises:
        ValueError: If the column is neither text nor integers.
    """
    if id_type not in ("auto", "string"):
        raise ValueError(f"`id_type` must be 'auto' or 'string', got {id_type!r}.")
    column = plain_column(column)
    if not (pa.types.is_integer(column.type) or pa.types.is_string(column.type)):
        _refuse_id_type(column, name, source)
    if id_type == "string":
        return column.cast(pa.string())
    if pa.types.is_integer(column.type):
        return _cast_integers(column, name, source)
    if source.is_text and pc.all(pc.match_substring_regex(column, INTEGER_PATTERN)).as_py():
        return column.cast(pa.int64())
    return column


def _cast_integers(column: pa.ChunkedArray, name: str, source: Source) -> pa.ChunkedArray:
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"Column `{name}` of {source.name} holds an integer beyond 64 bits with sign ({error}). Make the ids text."
        ) from error


def text_column(column: pa.ChunkedArray, name: str, source: Source) -> pa.ChunkedArray:
    """Return text or integers as text (behavior names, session names).

    Raises:
        ValueError: If the column is of another type.
    """
    column = plain_column(column)
    if not (pa.types.is_integer(column.type) or pa.types.is_string(column.type)):
        raise ValueError(
            f"Column `{name}` of {source.name} has the type {column.type}, but must be text or integers. Convert it."
        )
    return column.cast(pa.string())


def plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column with dictionaries decoded and of one string type; an all-null column counts as text."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or pa.types.is_null(kind):
        return column.cast(pa.string())
    return column


def _refuse_id_type(column: pa.ChunkedArray, name: str, source: Source) -> None:
    missing = pc.index(pc.is_null(column, nan_is_null=True), True).as_py()
    if missing >= 0:
        raise ValueError(
            f"Column `{name}` is empty in {source.where(missing)}. Every row needs an id: fill it in or leave the row "
            "out."
        )
    raise ValueError(
        f"Column `{name}` of {source.name} has the type {column.type} (row 0: {column[0].as_py()!r}), but ids are text "
        "or integers. Convert it, or name another column."
    )


def _expand(path: str) -> list[Path]:
    if Path(path).is_dir():
        files = sorted(Path(path).glob("*.parquet"))
        if not files:
            raise ValueError(f"The folder {path} holds no parquet file and no released GAMER layout. Name a file.")
        return files
    if Path(path).exists():
        return [Path(path)]
    matches = [Path(match) for match in sorted(glob.glob(path))]
    if not matches:
        raise FileNotFoundError(f"{path} does not exist.")
    return matches


def _open_files(paths: list[Path], delimiter: str | None) -> Source:
    parts = [_open_file(path, delimiter) for path in paths]
    if len(parts) == 1:
        return parts[0]
    for part in parts[1:]:
        if (set(part.column_names), part.is_text) != (set(parts[0].column_names), parts[0].is_text):
            raise ValueError(
                f"{part.name} has the columns {part.column_names}, but {parts[0].name} has {parts[0].column_names}. "
                "Files that are read together must agree."
            )

    def read(columns: Sequence[str] | None) -> pa.Table:
        names = parts[0].column_names if columns is None else columns
        tables = [part.read(names) for part in parts]
        _check_types([part.name for part in parts], tables)
        return pa.concat_tables(tables, promote_options="permissive")

    name = f"{parts[0].name} and {len(parts) - 1} more files"
    return Source(name, parts[0].column_names, read, tuple(paths), None, parts[0].is_text)


def _check_types(names: list[str], tables: list[pa.Table]) -> None:
    """Refuse files of which a column has types that no one type can hold."""
    for column in tables[0].column_names:
        try:
            pa.unify_schemas([table.select([column]).schema for table in tables], promote_options="permissive")
        except pa.ArrowException as error:
            first_files: dict[pa.DataType, str] = {}
            for name, table in zip(names, tables, strict=True):
                first_files.setdefault(table.schema.field(column).type, name)
            found = ", ".join(f"{kind} in {name}" for kind, name in first_files.items())
            raise ValueError(
                f"Column `{column}` must have one type in files that are read together, got {found}. Write the files "
                "again with one type."
            ) from error


def _open_file(path: Path, delimiter: str | None) -> Source:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    kind = suffixes[-2] if len(suffixes) > 1 and suffixes[-1] in COMPRESSION_SUFFIXES else (suffixes or [""])[-1]
    try:
        if kind == ".parquet":
            return _open_parquet(path)
        if kind in CSV_SUFFIXES:
            return _open_csv(path, delimiter)
        if kind in JSON_SUFFIXES:
            return _open_json(path)
    except UNREADABLE as error:
        raise _broken(path, error) from error
    raise ValueError(f"{path} has the unknown ending {kind!r}. Give a .parquet, .csv, .tsv, .jsonl or .json file.")


def _broken(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"{path} cannot be read: it is truncated, corrupt or not of the kind its name says ({error}). Mend that row or "
        "write the file again."
    )


def _reader(path: Path, read: Callable[[Sequence[str] | None], pa.Table]) -> Callable[[Sequence[str] | None], pa.Table]:
    """Turn Arrow's complaints into ours, naming the file."""

    def checked(columns: Sequence[str] | None) -> pa.Table:
        try:
            return read(columns)
        except UNREADABLE as error:
            raise _broken(path, error) from error

    return checked


def _open_parquet(path: Path) -> Source:
    import pyarrow.parquet as pq

    names = pq.read_schema(path).names
    return Source(
        str(path),
        names,
        _reader(path, lambda columns: pq.ParquetFile(path).read(columns=list(columns or names))),
        files=(path,),
    )


def _open_csv(path: Path, delimiter: str | None) -> Source:
    import pyarrow.csv as csv

    with pa.input_stream(str(path)) as stream:
        header = stream.read(1 << 16).decode("utf-8", errors="replace").split("\n", 1)[0].strip("\r" + BYTE_ORDER_MARK)
    if not header:
        raise ValueError(f"{path} is empty. A CSV file needs a header line with the column names.")
    separator = delimiter or max(DELIMITERS, key=header.count)
    parse = csv.ParseOptions(delimiter=separator, newlines_in_values=True)
    blocks = csv.ReadOptions(block_size=BLOCK_BYTES)
    with csv.open_csv(path, read_options=blocks, parse_options=parse) as reader:
        names = reader.schema.names

    def read(columns: Sequence[str] | None) -> pa.Table:
        convert = csv.ConvertOptions(
            column_types={name: pa.string() for name in names},
            include_columns=list(columns or names),
            null_values=[""],
            strings_can_be_null=True,
        )
        return csv.read_csv(path, read_options=blocks, parse_options=parse, convert_options=convert)

    return Source(str(path), names, _reader(path, read), (path,), first_line=2, is_text=True)


def _open_json(path: Path) -> Source:
    with pa.input_stream(str(path)) as stream:
        start = stream.read(64).lstrip()
    if not start:
        raise ValueError(f"{path} is empty. A JSON-lines file holds one object per line.")
    is_array = start.startswith(b"[")
    table = _json_array(path) if is_array else _json_lines(path)
    return Source(
        str(path),
        table.column_names,
        lambda columns: table if columns is None else table.select(list(columns)),
        files=(path,),
        first_line=None if is_array else 1,
    )


def _json_lines(path: Path) -> pa.Table:
    """Read one object per line. Arrow takes text that looks like a date for one, and drops its zone: it stays text."""
    import pyarrow.json as lines

    blocks = lines.ReadOptions(block_size=BLOCK_BYTES)
    table = lines.read_json(path, read_options=blocks)
    texts = [field.with_type(pa.string()) for field in table.schema if pa.types.is_timestamp(field.type)]
    if not texts:
        return table
    parse = lines.ParseOptions(explicit_schema=pa.schema(texts), unexpected_field_behavior="infer")
    return lines.read_json(path, read_options=blocks, parse_options=parse).select(table.column_names)


def _json_array(path: Path) -> pa.Table:
    """Read an array of objects, whose columns are the keys of all of them."""
    with pa.input_stream(str(path)) as stream:  # decompresses by the file's ending
        content = stream.read()
    try:
        rows = json.loads(content)
    except json.JSONDecodeError as error:
        raise _broken(path, error) from error
    wrong = next((row for row, value in enumerate(rows) if not isinstance(value, dict)), None)
    if wrong is not None:
        raise ValueError(
            f"{path} must be an array of objects, one per row, got {rows[wrong]!r} in row {wrong} (counted from 0)."
        )
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})


def _open_memory(source: Any) -> Source:
    kind = type(source).__module__.split(".")[0]
    name = "the table" if isinstance(source, Mapping) else f"the {kind} table"
    table = _to_arrow(source, kind, name)
    return Source(name, table.column_names, lambda columns: table if columns is None else table.select(list(columns)))


def _to_arrow(source: Any, kind: str, name: str) -> pa.Table:
    if isinstance(source, pa.Table):
        return source
    if kind == "datasets" and type(source).__name__ == "Dataset":
        return source.with_format("arrow")[:]
    if kind == "pandas" or (isinstance(source, Mapping) and kind != "datasets"):
        names, columns = [], []
        for column, values in source.items():  # a frame may name two columns alike, which `Source.require` refuses
            names.append(str(column))
            columns.append(_array(values, str(column), name))
        _check_lengths(names, columns, name)
        return pa.Table.from_arrays(columns, names)
    if kind == "polars":
        return (source.collect() if hasattr(source, "collect") else source).to_arrow()
    raise ValueError(
        "A table is a path, an Arrow table, a pandas or polars frame, a `datasets.Dataset` (one split, not streamed) "
        f"or a mapping of columns, got {type(source).__module__}.{type(source).__qualname__}. Convert it, or save "
        "it as parquet and give its path."
    )


def _check_lengths(names: list[str], columns: list[pa.Array], name: str) -> None:
    for column, values in zip(names, columns, strict=True):
        if len(values) != len(columns[0]):
            raise ValueError(
                f"All columns of {name} must have one length, got {len(columns[0])} values of `{names[0]}` and "
                f"{len(values)} of `{column}`. Give one value per row."
            )


def _array(values: Any, column: str, name: str) -> pa.Array:
    """Turn a list or pandas column into Arrow, where it must have one type."""
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        types = [type(value) for value in values]
        row = next((row for row, kind in enumerate(types) if kind not in (types[0], type(None))), 0)
        raise ValueError(
            f"Column `{column}` of {name} mixes types: row 0 is {types[0].__name__}, row {row} (counted from 0) is "
            f"{types[row].__name__}. Give it one type, for example text throughout."
        ) from error


def _table_fingerprint(table: pa.Table) -> str:
    """Hash values, not chunks: equal tables hash equally however they are cut."""
    import hashlib

    digest = hashlib.sha256()
    with pa.ipc.new_stream(sink := pa.BufferOutputStream(), table.schema.remove_metadata()) as writer:
        writer.write_table(table.replace_schema_metadata(None).combine_chunks())
    digest.update(sink.getvalue())
    return digest.hexdigest()[:16]
