"""Histories of any number of users from a file, some users at a time: sorted on disk, never whole in memory."""

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from genrec.cli.tables import PADDED_PATTERN, read_table
from genrec.data.readers import INTEGER_PATTERN, Source, open_source

MEMORY_LIMIT = "1GB"
ROWS_PER_READ = 10_000
ROW, FIRST_ROW = "genrec_row", "genrec_first_row"  # no column of a log has these names
FRACTIONS_IN = ("timestamp", "session")  # all other columns of a CSV file are read as a log's ids are
USER = "CAST(user_id AS VARCHAR)"


@dataclass(frozen=True)
class HistoryBatches:
    """A table's histories.

    Args:
        num_users: How many users there are.
        batches: Tables of whole histories, users in the order of their first rows; to be read once.
    """

    num_users: int
    batches: Iterator[Any]


@contextmanager
def open_history_batches(
    path: Path, users: Sequence[str], users_per_batch: int, has_integer_items: bool | None = None
) -> Iterator[HistoryBatches]:
    """Give the histories of a table, some users at a time; a table without `user_id` is one history.

    The rows are copied to a temporary database, sorted there by user and within a user in their own order. (JSON alone
    is read whole first, since Arrow has no other way.)

    Args:
        path: CSV, parquet or JSON lines; columns of a CSV file become integers where every value is one, as a log's ids
            do; only times and sessions may have fractions.
        users: Ids to keep; none means all.
        users_per_batch: Users per table.
        has_integer_items: Whether the catalog's ids are integers, which the few items of a CSV file cannot tell: its
            items become what the catalog has. None leaves them as the file's own values say.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is of another kind or corrupt, or a user is not in it.
    """
    source = open_source(path)
    if "user_id" not in source.column_names:
        if users:
            raise ValueError("`--user` needs a column `user_id` in the histories. Add it, or leave `--user` out.")
        table = read_table(path, fractions_in=FRACTIONS_IN).to_pydict()
        yield HistoryBatches(1, iter([_as_in_catalog(table, source, has_integer_items)]))
        return
    import duckdb

    with tempfile.TemporaryDirectory() as folder:
        database = duckdb.connect(str(Path(folder) / "histories.db"))
        try:
            database.execute(f"SET memory_limit = '{MEMORY_LIMIT}'; SET threads = 1; SET enable_progress_bar = false")
            _copy(database, path, source)
            _keep_users(database, users)
            ((num_users,),) = database.execute(f"SELECT count(DISTINCT {FIRST_ROW}) FROM histories").fetchall()
            batches = _whole_users(database, users_per_batch)
            yield HistoryBatches(num_users, (_as_in_catalog(each, source, has_integer_items) for each in batches))
        finally:
            database.close()


def _as_in_catalog(
    columns: dict[str, list[Any]], source: Source, has_integer_items: bool | None
) -> dict[str, list[Any]]:
    """Return columns with behaviors as text, like a ladder's, and a CSV file's items as the catalog's ids are."""
    known = {}
    if "behavior" in columns:
        known["behavior"] = [_as_text(value) for value in columns["behavior"]]
    if source.is_text and has_integer_items is not None and "item_id" in columns:
        as_id = _as_integer if has_integer_items else _as_text
        known["item_id"] = [as_id(value) for value in columns["item_id"]]
    return columns | known


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) else value


def _as_integer(value: Any) -> Any:
    return int(value) if isinstance(value, str) and re.match(INTEGER_PATTERN, value) else value


def _copy(database: Any, path: Path, source: Source) -> None:
    """Fill the table `histories` with all rows, their numbers, and the number of each user's first row."""
    import duckdb

    rows = _scan(path, source)
    try:
        database.register("source", rows)
        database.execute(f"CREATE TABLE numbered AS SELECT *, row_number() OVER () AS {ROW} FROM source")
    except duckdb.Error as error:
        raise ValueError(
            f"{path} cannot be read: it is truncated, corrupt or not of the kind its name says ({error}). Write the "
            "file again."
        ) from error
    columns = [_typed(database, name, source.is_text) for name in source.column_names]
    database.execute(
        f"CREATE TABLE histories AS SELECT {', '.join(columns)}, {ROW}, "
        f"min({ROW}) OVER (PARTITION BY user_id) AS {FIRST_ROW} FROM numbered"
    )


def _scan(path: Path, source: Source) -> Any:
    """Return what DuckDB can read row after row."""
    import pyarrow.csv as csv
    import pyarrow.dataset as ds

    if source.is_text:
        names = source.column_names
        with pa.input_stream(str(path)) as stream:
            header = stream.read(1 << 16).decode("utf-8", errors="replace").split("\n", 1)[0]
        separator = max(",\t;|", key=header.count)
        form: Any = ds.CsvFileFormat(
            parse_options=csv.ParseOptions(delimiter=separator, newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), null_values=[""], strings_can_be_null=True
            ),
        )
        return ds.dataset([str(file) for file in source.files], format=form)
    if source.files and all(file.suffix == ".parquet" for file in source.files):
        return ds.dataset([str(file) for file in source.files], format="parquet")
    return source.read(None)


def _typed(database: Any, name: str, is_text: bool) -> str:
    """Return SQL for a column, as a number where it is text and every value is one; `007` stays text."""
    quoted = '"' + name.replace('"', '""') + '"'
    if not is_text:
        return quoted
    if _all_rows(database, quoted, f"regexp_matches({quoted}, '{INTEGER_PATTERN}')"):
        return f"CAST({quoted} AS BIGINT) AS {quoted}"
    is_number = f"try_cast({quoted} AS DOUBLE) IS NOT NULL AND NOT regexp_matches({quoted}, '{PADDED_PATTERN}')"
    has_fractions = name in FRACTIONS_IN and _all_rows(database, quoted, is_number)
    return f"CAST({quoted} AS DOUBLE) AS {quoted}" if has_fractions else quoted


def _all_rows(database: Any, quoted: str, check: str) -> bool:
    """Say whether a check holds in every row that has a value."""
    ((holds,),) = database.execute(f"SELECT bool_and({check}) FROM numbered WHERE {quoted} IS NOT NULL").fetchall()
    return bool(holds)


def _keep_users(database: Any, users: Sequence[str]) -> None:
    for user in users:
        if not database.execute(f"SELECT 1 FROM histories WHERE {USER} = ? LIMIT 1", [user]).fetchone():
            raise ValueError(f"The histories have no user {user!r}. Check the id.")
    if users:
        database.execute(f"DELETE FROM histories WHERE {USER} NOT IN (SELECT unnest(?))", [list(users)])


def _whole_users(database: Any, users_per_batch: int) -> Iterator[dict[str, list[Any]]]:
    """Yield tables that hold all rows of `users_per_batch` users each."""
    cursor = database.execute(f"SELECT * EXCLUDE ({ROW}) FROM histories ORDER BY {FIRST_ROW}, {ROW}")
    *names, _ = (column[0] for column in cursor.description)
    rows: list[tuple[Any, ...]] = []
    while more := cursor.fetchmany(ROWS_PER_READ):
        rows += more
        starts = _starts_of_users(rows)
        while len(starts) > users_per_batch:  # the last user may go on in the next rows
            yield _columns(names, rows[: starts[users_per_batch]])
            rows = rows[starts[users_per_batch] :]
            starts = _starts_of_users(rows)
    yield _columns(names, rows)


def _starts_of_users(rows: list[tuple[Any, ...]]) -> list[int]:
    return [number for number, row in enumerate(rows) if number == 0 or row[-1] != rows[number - 1][-1]]


def _columns(names: list[str], rows: list[tuple[Any, ...]]) -> dict[str, list[Any]]:
    return {name: [row[number] for row in rows] for number, name in enumerate(names)}
