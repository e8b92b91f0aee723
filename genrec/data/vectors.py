"""Vectors in a table, one list of numbers per row, read from Arrow's buffers: as Python lists they take far longer."""

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa


def is_list(kind: "pa.DataType") -> bool:
    """Whether a type is one of lists, of fixed length or not."""
    import pyarrow.types as kinds

    return kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind)


def is_vectors(kind: Any) -> bool:
    """Whether a type is one of lists of numbers.

    Example:
        >>> import pyarrow as pa
        >>> is_vectors(pa.list_(pa.float32())), is_vectors(pa.list_(pa.string())), is_vectors(pa.float32())
        (True, False, False)
    """
    import pyarrow.types as kinds

    return is_list(kind) and (kinds.is_floating(kind.value_type) or kinds.is_integer(kind.value_type))


def lengths_of_vectors(column: "pa.ChunkedArray") -> np.ndarray:
    """Return how many numbers each row has, `[rows]` int64, -1 for a row without a vector."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.list_value_length(column).cast(pa.int64()).fill_null(-1).to_numpy()


def hash_of_vectors(column: "pa.ChunkedArray") -> str:
    """Return a hash of vectors that tells other values, lengths or types apart, however the column is cut into chunks.

    Example:
        >>> import pyarrow as pa
        >>> whole, cut = pa.chunked_array([[[1], [2, 3]]]), pa.chunked_array([[[1]], [[2, 3]]])
        >>> hash_of_vectors(whole) == hash_of_vectors(cut), hash_of_vectors(whole) == hash_of_vectors(whole[:1])
        (True, False)
    """
    numbers, gaps = hashlib.sha256(), hashlib.sha256()
    for chunk in column.chunks:
        values = chunk.flatten()
        numbers.update(_bytes(values.fill_null(0)))
        gaps.update(_bytes(values.is_null()))
    lengths = hashlib.sha256(lengths_of_vectors(column).data)
    return ":".join([str(column.type.value_type), *(part.hexdigest() for part in (lengths, numbers, gaps))])


def _bytes(values: "pa.Array") -> memoryview:
    return np.ascontiguousarray(values.to_numpy(zero_copy_only=False)).data
