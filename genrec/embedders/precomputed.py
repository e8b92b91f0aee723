"""Item vectors that were made elsewhere and lie in a file."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genrec.data.catalog import Catalog
from genrec.data.event_columns import as_id_array
from genrec.data.histories import ItemIndex
from genrec.data.vectors import is_list, is_vectors, lengths_of_vectors
from genrec.embedders.base import check_embeddings
from genrec.files import load_safetensors

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class PrecomputedEmbedder:
    """Embed items by looking them up in a file.

    Args:
        path: One of

            * `.parquet`: a column with item ids and either one column of lists or one numeric column per dimension;
            * `.safetensors`: a tensor `embeddings` `[items, dim]` and, for integer ids, `item_ids` `[items]`;
            * `.npy`: an array `[items, dim]`.

            Without ids (`.npy`, or safetensors without `item_ids`) the rows must be the catalog's, in its order.
        item_column: Which column of a parquet file holds the ids.

    Raises:
        ValueError: If the file is of another kind.
    """

    path: str | Path
    item_column: str = "item_id"

    def __post_init__(self) -> None:
        if Path(self.path).suffix not in _READERS:
            raise ValueError(
                f"`path` must end in one of {', '.join(_READERS)}, got {str(self.path)!r}. Convert the file."
            )

    def embed(self, catalog: Catalog) -> np.ndarray:
        """Return `[items, dim]` float32 in catalog order. The file may hold further items.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file lacks an item of the catalog (the first one is named), names one twice, or has
                values that are no finite numbers.
        """
        path = Path(self.path)
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist. Give the file with the item vectors.")
        ids, vectors = _READERS[path.suffix](path, self.item_column)
        if ids is None:
            return check_embeddings(vectors, len(catalog))
        vectors = check_embeddings(vectors, len(ids))
        return vectors[_find(catalog, ids, path)]


def _find(catalog: Catalog, ids: np.ndarray, path: Path) -> np.ndarray:
    """Return the file's row of each catalog item, `[items]`."""
    seen: set[Any] = set()
    for item in ids.tolist():
        if item in seen:
            raise ValueError(f"{path} names the item {item!r} twice. Keep one vector per item.")
        seen.add(item)
    rows = ItemIndex(ids).rows(catalog.item_ids)
    if (rows < 0).any():
        missing = catalog.item_ids.tolist()[int(np.argmax(rows < 0))]
        raise ValueError(
            f"{path} has no vector for the item {missing!r} ({int((rows < 0).sum())} of {len(catalog)} items are "
            f"missing; its ids look like {ids.tolist()[0]!r}). Add them, or drop these items from the log."
        )
    return rows


def _read_npy(path: Path, item_column: str) -> tuple[None, np.ndarray]:
    try:
        return None, np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is no whole array of numbers ({error}). Save it with `numpy.save`.") from error


def _read_safetensors(path: Path, item_column: str) -> tuple[np.ndarray | None, np.ndarray]:
    tensors = load_safetensors(path)
    if "embeddings" not in tensors:
        raise ValueError(f"{path} must hold a tensor `embeddings`, got {sorted(tensors)}. Rename it.")
    vectors = tensors["embeddings"].float().numpy()
    return (as_id_array(tensors["item_ids"].numpy()) if "item_ids" in tensors else None), vectors


def _read_parquet(path: Path, item_column: str) -> tuple[np.ndarray, np.ndarray]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is truncated or corrupt ({error}). Copy or write it again.") from error
    if item_column not in table.column_names:
        raise ValueError(f"{path} has no column {item_column!r}, only {table.column_names}. Set `item_column`.")
    return as_id_array(table[item_column].to_pylist()), _vectors(table.drop_columns([item_column]), path)


def _vectors(table: "pa.Table", path: Path) -> np.ndarray:
    """Read the one column of lists, or all numeric columns side by side, `[items, dim]`."""
    import pyarrow.types as kinds

    lists = [name for name in table.column_names if is_list(table[name].type)]
    if len(lists) == 1 and is_vectors(table[lists[0]].type):
        return _stack(table[lists[0]], path)
    numbers = [
        name for name in table.column_names if kinds.is_floating(table[name].type) or kinds.is_integer(table[name].type)
    ]
    if lists or not numbers:
        raise ValueError(
            f"{path} must hold its vectors as one column of lists of numbers or as numeric columns, got "
            f"{table.column_names}. Drop the other columns."
        )
    return np.stack([table[name].to_numpy() for name in numbers], axis=1).astype(np.float32)


def _stack(column: "pa.ChunkedArray", path: Path) -> np.ndarray:
    widths = lengths_of_vectors(column)
    uneven = np.flatnonzero((widths != widths[:1]) | (widths <= 0))
    if len(uneven):
        row = int(uneven[0])
        raise ValueError(
            f"{path} must have vectors of one length, got {max(widths[row], 0)} values in row {row} and "
            f"{max(widths[0], 0)} in row 0. Mend or drop that row."
        )
    vectors = np.empty((len(widths), int(widths[0]) if len(widths) else 0), dtype=np.float32)
    row = 0
    for chunk in column.chunks:
        values = chunk.flatten().to_numpy(zero_copy_only=False)
        vectors[row : row + len(chunk)] = values.reshape(len(chunk), vectors.shape[1])
        row += len(chunk)
    return vectors


_READERS = {".npy": _read_npy, ".safetensors": _read_safetensors, ".parquet": _read_parquet}
