"""The catalog: every item that may be recommended, in the row order that all item arrays of genrec refer to."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genrec.data.event_columns import as_id_array
from genrec.data.histories import ItemIndex
from genrec.data.vectors import hash_of_vectors, is_vectors
from genrec.files import fingerprint, write_atomically

if TYPE_CHECKING:
    import pyarrow as pa

CATALOG_FILE = "catalog.parquet"
ITEM_COLUMN = "item_id"
TEXT_COLUMNS = ("title", "text", "category", "brand")


@dataclass(frozen=True, eq=False)
class Catalog:
    """Items and what is known about them.

    Args:
        item_ids: Unique ids, strings or integers, `[items]`. Their order is the row order everywhere.
        table: One row per item in the same order, with any columns (`title`, `text`, `category`, `brand` are read as
            text), or None when only ids are known.

    Raises:
        ValueError: If an id is missing or stands twice, or the table has another number of rows.

    Example:
        >>> catalog = Catalog(["a", "b"])
        >>> len(catalog), catalog.rows(["b", "x"]).tolist(), catalog.titles()
        (2, [1, -1], ['a', 'b'])
    """

    item_ids: np.ndarray
    table: "pa.Table | None" = None

    def __post_init__(self) -> None:
        ids = as_id_array(self.item_ids)
        object.__setattr__(self, "item_ids", ids)
        _check_ids(ids)
        if self.table is not None and self.table.num_rows != len(ids):
            raise ValueError(
                f"`table` must have one row per item, got {self.table.num_rows} rows for {len(ids)} items. Build the "
                "catalog with `Catalog.read(table)`, which takes the ids from the table."
            )

    @classmethod
    def read(
        cls,
        source: Any,
        item_column: str = ITEM_COLUMN,
        *,
        id_type: str = "auto",
        delimiter: str | None = None,
    ) -> "Catalog":
        """Read a catalog from a file or table of any kind that `InteractionLog.read` takes.

        Args:
            source: A path (parquet, CSV, JSON lines) or a table (Arrow, pandas, polars, `datasets.Dataset`, columns).
            item_column: Which column holds the ids. It is called `item_id` in the result.
            id_type: `"auto"` keeps the type of the source (CSV ids that are all integers become integers);
                `"string"` makes them strings.
            delimiter: What separates the values of a CSV file; None finds out from its first line.

        Raises:
            ValueError: If the column is missing or is no id column, two columns have one name, there is no item, or an
                id is missing or stands twice.
        """
        from genrec.data.readers import id_column, open_source

        opened = open_source(source, delimiter=delimiter)
        opened.require({ITEM_COLUMN: item_column})
        opened.require({name: name for name in opened.column_names})  # all are read, so none may stand twice
        table = opened.read(None)
        if table.num_rows == 0:
            raise ValueError(f"There is no row in {opened.name}. A catalog needs at least one item.")
        ids = id_column(table[item_column], item_column, opened, id_type)
        _check_ids(as_id_array(ids.to_pylist()), item_column, opened.where)
        others = [name for name in table.column_names if name not in (item_column, ITEM_COLUMN)]
        return cls(as_id_array(ids.to_pylist()), table.select(others).add_column(0, ITEM_COLUMN, ids))

    @classmethod
    def load(cls, folder: str | Path) -> "Catalog":
        """Load what `save` wrote.

        Raises:
            FileNotFoundError: If the folder has no catalog.
            ValueError: If the file is truncated or corrupt.
        """
        path = Path(folder) / CATALOG_FILE
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist. Write it with `Catalog.save`.")
        return cls.read(path)

    def save(self, folder: str | Path) -> Path:
        """Write `catalog.parquet` into a folder, atomically, and return its path."""
        import pyarrow.parquet as pq

        path = Path(folder) / CATALOG_FILE
        with write_atomically(path) as temporary:
            pq.write_table(self.to_arrow(), temporary)
        return path

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def column_names(self) -> list[str]:
        """Names of the columns beside the ids."""
        return [] if self.table is None else [name for name in self.table.column_names if name != ITEM_COLUMN]

    @property
    def fingerprint(self) -> str:
        """A short content hash of ids and columns."""
        columns = {name: self._content(name) for name in self.column_names}
        return fingerprint(self.item_ids.tolist(), columns)

    def _content(self, name: str) -> Any:
        """Return what identifies a column's values: themselves, or a hash where they are vectors, too many to print."""
        assert self.table is not None
        column = self.table[name]
        return hash_of_vectors(column) if is_vectors(column.type) else column.to_pylist()

    @cached_property
    def _index(self) -> ItemIndex:
        return ItemIndex(self.item_ids)

    def rows(self, ids: Sequence[Any] | np.ndarray) -> np.ndarray:
        """Return the rows of these ids, `[ids]` int64, -1 for an id that the catalog lacks."""
        return self._index.rows(ids)

    def column(self, name: str) -> list[Any]:
        """Return one value per item, None where the catalog says nothing.

        Raises:
            ValueError: If there is no such column.
        """
        if self.table is None or name not in self.table.column_names:
            raise ValueError(
                f"The catalog has no column {name!r}; it has: {', '.join(self.column_names) or 'ids only'}."
            )
        return self.table[name].to_pylist()

    def texts(self, columns: Sequence[str] | None = None) -> list[str]:
        """Return one text per item: its text columns joined, the empty string if it has none.

        Args:
            columns: Which columns, in order; None takes those of title, text, category and brand that exist.

        Raises:
            ValueError: If a named column does not exist.
        """
        names = [name for name in TEXT_COLUMNS if name in self.column_names] if columns is None else list(columns)
        if not names:
            return [""] * len(self)
        parts = zip(*(self.column(name) for name in names), strict=True)
        return [
            ". ".join(str(part).strip() for part in item if part is not None and str(part).strip()) for item in parts
        ]

    def titles(self) -> list[str]:
        """Return what to print for each item: its title, or its id where it has none."""
        titles = self.column("title") if "title" in self.column_names else [None] * len(self)
        return [str(title or item_id) for title, item_id in zip(titles, self.item_ids.tolist(), strict=True)]

    def with_items(self, item_ids: Sequence[Any] | np.ndarray) -> "Catalog":
        """Return a catalog with further items at the end, nothing known about them."""
        import pyarrow as pa

        ids = as_id_array([*self.item_ids.tolist(), *as_id_array(item_ids).tolist()])
        if self.table is None:
            return Catalog(ids)
        added = pa.table({ITEM_COLUMN: pa.array(as_id_array(item_ids).tolist(), self.table[ITEM_COLUMN].type)})
        known = self.table.cast(pa.schema([field.with_nullable(True) for field in self.table.schema]))
        return Catalog(ids, pa.concat_tables([known, added], promote_options="default"))

    def select(self, rows: np.ndarray) -> "Catalog":
        """Keep these rows (integers), in this order."""
        table = None if self.table is None else self.table.take(np.asarray(rows, dtype=np.int64))
        return Catalog(self.item_ids[rows], table)

    def to_arrow(self) -> "pa.Table":
        """Return the catalog as a table whose first column is `item_id`."""
        import pyarrow as pa

        return pa.table({ITEM_COLUMN: pa.array(self.item_ids.tolist())}) if self.table is None else self.table


def _check_ids(ids: np.ndarray, column: str = ITEM_COLUMN, where: Any = "row {}".format) -> None:
    first_row: dict[Any, int] = {}
    for row, item_id in enumerate(ids.tolist()):
        if item_id is None or item_id == "" or item_id != item_id:  # NaN equals nothing
            raise ValueError(f"The catalog's column `{column}` is empty in {where(row)}. Give every item an id.")
        if first_row.setdefault(item_id, row) != row:
            raise ValueError(
                f"The catalog's column `{column}` must name every item once, but {item_id!r} stands in "
                f"{where(first_row[item_id])} and again in {where(row)}. Remove one of them."
            )
