"""Vectors from files: every kind gives back what was written, in catalog order."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from genrec.data.catalog import Catalog
from genrec.embedders.precomputed import PrecomputedEmbedder

VECTORS = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], dtype=np.float32)
IDS = [30, 10, 20]


def write_npy(path: Path) -> None:
    np.save(path, VECTORS[[1, 2]])


def write_safetensors(path: Path) -> None:
    save_file({"embeddings": torch.tensor(VECTORS, dtype=torch.float16), "item_ids": torch.tensor(IDS)}, path)


def write_safetensors_in_order(path: Path) -> None:
    save_file({"embeddings": torch.tensor(VECTORS[[1, 2]])}, path)


def write_lists(path: Path) -> None:
    pq.write_table(pa.table({"item_id": IDS, "note": ["x", "y", "z"], "vector": VECTORS.tolist()}), path)


def write_fixed_lists(path: Path) -> None:
    fixed = pa.FixedSizeListArray.from_arrays(VECTORS.ravel(), 2)
    pq.write_table(pa.table({"item_id": IDS, "vector": fixed}), path)


def write_columns(path: Path) -> None:
    pq.write_table(pa.table({"x": VECTORS[:, 0], "item_id": IDS, "y": VECTORS[:, 1].astype(int)}), path)


@pytest.mark.parametrize(
    ("write", "suffix"),
    [
        (write_npy, "npy"),
        (write_safetensors, "safetensors"),
        (write_safetensors_in_order, "safetensors"),
        (write_lists, "parquet"),
        (write_fixed_lists, "parquet"),
        (write_columns, "parquet"),
    ],
)
def test_every_kind_of_file_gives_the_vectors_in_catalog_order(write, suffix, tmp_path):
    path = tmp_path / f"vectors.{suffix}"
    write(path)
    vectors = PrecomputedEmbedder(path).embed(Catalog([10, 20]))
    assert vectors.tolist() == [[3.0, 4.0], [5.0, 6.0]]
    assert vectors.dtype == np.float32


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64(), pa.int8(), pa.int64()])
@pytest.mark.parametrize("make", [pa.list_, pa.large_list, lambda kind: pa.list_(kind, 2)])
def test_lists_of_any_numbers_in_any_number_of_chunks(make, kind, tmp_path):
    values = [np.array(vector, dtype=kind.to_pandas_dtype()) for vector in VECTORS]
    table = pa.table({"item_id": IDS, "vector": pa.array(values, make(kind))})
    pq.write_table(table, tmp_path / "vectors.parquet", row_group_size=1)
    vectors = PrecomputedEmbedder(tmp_path / "vectors.parquet").embed(Catalog(IDS))
    assert (vectors.tolist(), vectors.dtype) == (VECTORS.tolist(), np.float32)


def test_ids_of_strings_under_another_name(tmp_path):
    path = tmp_path / "vectors.parquet"
    pq.write_table(pa.table({"sku": ["b", "a"], "vector": [[1.0], [2.0]]}), path)
    assert PrecomputedEmbedder(path, item_column="sku").embed(Catalog(["a", "b"])).tolist() == [[2.0], [1.0]]


def test_a_missing_item_is_named(tmp_path):
    path = tmp_path / "vectors.parquet"
    write_lists(path)
    with pytest.raises(
        ValueError, match=r"no vector for the item 77 \(2 of 3 items are missing; its ids look like 30\)"
    ):
        PrecomputedEmbedder(path).embed(Catalog([10, 77, 88]))


def test_rows_without_ids_must_be_the_catalogs(tmp_path):
    np.save(tmp_path / "vectors.npy", VECTORS)
    with pytest.raises(ValueError, match="got 3 rows for 2 items"):
        PrecomputedEmbedder(tmp_path / "vectors.npy").embed(Catalog([10, 20]))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"item_id": [1, 2, 1], "vector": [[1.0]] * 3}, "names the item 1 twice"),
        ({"item_id": [1, 2], "vector": [[1.0, 2.0], [1.0]]}, "got 1 values in row 1 and 2 in row 0"),
        ({"item_id": [1, 2], "vector": pa.array([[1.0], None])}, "got 0 values in row 1"),
        (
            {"item_id": [1, 2], "title": ["a", "b"]},
            r"one column of lists of numbers or as numeric columns, got \['title'\]",
        ),
        (
            {"item_id": [1, 2], "u": [[1.0]] * 2, "v": [[1.0]] * 2},
            "one column of lists of numbers or as numeric columns",
        ),
        ({"item_id": [1, 2], "tags": [["a"], ["b"]]}, "one column of lists of numbers"),
        ({"item_id": [1, 2], "vector": pa.array([None, [1.0]])}, "got 0 values in row 0 and 0 in row 0"),
        ({"item_id": pa.array([], pa.int64()), "vector": pa.array([], pa.list_(pa.float32()))}, r"got shape \[0, 0\]"),
        ({"item_id": [1, 2], "vector": [[1.0], [float("nan")]]}, "row 1 has nan"),
        ({"item_id": [1, 2], "vector": [[1.0, 2.0], [3.0, None]]}, "row 1 has nan in column 1"),
        ({"sku": [1], "vector": [[1.0]]}, "no column 'item_id'"),
    ],
)
def test_unusable_tables_are_refused(table, message, tmp_path):
    path = tmp_path / "vectors.parquet"
    pq.write_table(pa.table(table), path)
    with pytest.raises(ValueError, match=message):
        PrecomputedEmbedder(path).embed(Catalog([1]))


@pytest.mark.parametrize("suffix", ["npy", "safetensors", "parquet"])
def test_a_broken_file_is_named(suffix, tmp_path):
    path = tmp_path / f"vectors.{suffix}"
    path.write_bytes(b"\x93NUMPY broken")
    with pytest.raises(ValueError, match=f"vectors.{suffix}"):
        PrecomputedEmbedder(path).embed(Catalog([1]))


def test_pickled_arrays_are_refused(tmp_path):
    np.save(tmp_path / "vectors.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"no whole array of numbers"):
        PrecomputedEmbedder(tmp_path / "vectors.npy").embed(Catalog([1]))


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must end in one of \.npy, \.safetensors, \.parquet"):
        PrecomputedEmbedder("vectors.pkl")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.npy does not exist"):
        PrecomputedEmbedder(tmp_path / "nowhere.npy").embed(Catalog([1]))
    save_file({"weights": torch.zeros(1, 1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"must hold a tensor `embeddings`, got \['weights'\]"):
        PrecomputedEmbedder(tmp_path / "other.safetensors").embed(Catalog([1]))
