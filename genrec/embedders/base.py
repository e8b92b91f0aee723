"""What an embedder is: it turns a catalog into one vector per item."""

from typing import Any, Protocol, runtime_checkable

import numpy as np

from genrec.data.catalog import Catalog


@runtime_checkable
class Embedder(Protocol):
    """The seam between a catalog and the item tokenizers."""

    def embed(self, catalog: Catalog) -> np.ndarray:
        """Return one vector per item in catalog order, `[items, dim]` float32, all finite.

        An item that the embedder knows nothing about gets the zero vector.
        """
        ...


def check_embeddings(embeddings: Any, num_items: int, item_ids: np.ndarray | None = None) -> np.ndarray:
    """Return embeddings as a contiguous float32 array after making sure that they can be used; no copy if it is one.

    Args:
        embeddings: Anything array-like, `[items, dim]`.
        num_items: How many rows the catalog has.
        item_ids: The catalog's ids, to name the item in a message, or None.

    Raises:
        ValueError: If the shape is wrong or a value is NaN or infinite (the first such row is named).

    Example:
        >>> check_embeddings([[1, 2], [3, 4]], num_items=2).dtype
        dtype('float32')
    """
    array = np.asarray(embeddings)
    if array.ndim != 2 or array.shape[1] == 0 or array.dtype.kind not in "fiu":
        raise ValueError(
            f"Embeddings must be numbers of shape [items, dim], got shape {list(array.shape)} of {array.dtype}. Give "
            "one vector of equal length per item."
        )
    if len(array) != num_items:
        raise ValueError(
            f"Embeddings must have one row per catalog item, got {len(array)} rows for {num_items} items. Make them "
            "anew for this catalog."
        )
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, dtype=np.float32)
    _check_finite(array, item_ids)
    return array


def _check_finite(array: np.ndarray, item_ids: np.ndarray | None) -> None:
    with np.errstate(invalid="ignore"):
        wrong = np.flatnonzero(~np.isfinite(array.sum(axis=1, dtype=np.float64)))
    if len(wrong) == 0:
        return
    row = int(wrong[0])
    column = int(np.argmin(np.isfinite(array[row])))
    item = "" if item_ids is None else f" (item {item_ids.tolist()[row]!r})"
    raise ValueError(
        f"Embeddings must be finite, but row {row}{item} has {array[row, column]} in column {column} (and {len(wrong)} "
        "rows in all are not finite). Mend or drop these items."
    )


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Scale every row to length 1; a zero row stays zero.

    >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1)
