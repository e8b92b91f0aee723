import re

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genrec.data.catalog import Catalog

COLUMNS = {
    "item_id": ["b", "a", "c"],
    "title": ["Blue bowl", None, " Cup "],
    "brand": [None, None, "Acme"],
    "price": [3, 4, None],
}


def test_row_order_is_the_order_of_the_source():
    catalog = Catalog.read(COLUMNS)
    assert catalog.item_ids.tolist() == ["b", "a", "c"]
    assert catalog.rows(["a", "x", "b"]).tolist() == [1, -1, 0]


def test_texts_join_the_columns_that_an_item_has():
    catalog = Catalog.read(COLUMNS)
    assert catalog.texts() == ["Blue bowl", "", "Cup. Acme"]
    assert catalog.texts(["brand", "price"]) == ["3", "4", "Acme"]


def test_titles_fall_back_to_the_id():
    assert Catalog.read(COLUMNS).titles() == ["Blue bowl", "a", " Cup "]
    assert Catalog([3, 1]).titles() == ["3", "1"]


def test_catalog_of_ids_only_has_empty_texts():
    catalog = Catalog([3, 1])
    assert catalog.texts() == ["", ""]
    assert catalog.column_names == []


@pytest.mark.parametrize("ids", [["x", "7"], [4, 2]])
def test_save_and_load_round_trip(tmp_path, ids):
    catalog = Catalog.read({"item_id": ids, "title": ["one", None]})
    catalog.save(tmp_path)
    loaded = Catalog.load(tmp_path)
    assert loaded.item_ids.tolist() == ids
    assert loaded.column("title") == ["one", None]
    assert loaded.fingerprint == catalog.fingerprint
    Catalog(ids).save(tmp_path)
    assert Catalog.load(tmp_path).item_ids.tolist() == ids


@pytest.mark.parametrize("source", ["parquet", "csv", "jsonl", "arrow", "pandas", "polars"])
def test_every_kind_of_source_gives_the_same_catalog(tmp_path, source):
    table = pa.table({"sku": [5, 3], "title": ["five", "three"]})
    if source == "parquet":
        pq.write_table(table, tmp_path / "items.parquet")
    elif source == "csv":
        (tmp_path / "items.csv").write_text("sku,title\n5,five\n3,three\n")
    elif source == "jsonl":
        (tmp_path / "items.jsonl").write_text('{"sku": 5, "title": "five"}\n{"sku": 3, "title": "three"}\n')
    in_memory = {"arrow": table, "pandas": table.to_pandas(), "polars": pl.from_arrow(table)}
    catalog = Catalog.read(in_memory.get(source, tmp_path / f"items.{source}"), item_column="sku")
    assert catalog.item_ids.tolist() == [5, 3]
    assert catalog.column("title") == ["five", "three"]
    assert catalog.column_names == ["title"]


def test_ids_become_text_when_asked():
    assert Catalog.read({"item_id": [1, 2]}, id_type="string").item_ids.tolist() == ["1", "2"]


def test_duplicate_id_names_both_rows():
    message = "must name every item once, but 'a' stands in row 0 (counted from 0) of the table and again in row 2"
    with pytest.raises(ValueError, match=re.escape(message)):
        Catalog.read({"item_id": ["a", "b", "a"]})
    with pytest.raises(ValueError, match="4 stands in row 0 and again in row 1"):
        Catalog([4, 4])


def test_missing_id_names_the_row():
    with pytest.raises(ValueError, match="`item_id` is empty in row 1"):
        Catalog.read(pd.DataFrame({"item_id": ["a", None]}))
    with pytest.raises(ValueError, match="`item_id` is empty in row 1 .* of the pandas table"):
        Catalog.read(pd.DataFrame({"item_id": [1, None]}))


@pytest.mark.parametrize("missing", [None, "", float("nan")])
def test_missing_id_among_given_ones_names_the_row(missing):
    with pytest.raises(ValueError, match="`item_id` is empty in row 1"):
        Catalog([3.5, missing])


@pytest.mark.parametrize("kind", ["csv", "parquet", "mapping"])
def test_a_source_without_items_is_refused(tmp_path, kind):
    (tmp_path / "items.csv").write_text("item_id,title\n")
    pq.write_table(pa.table({"item_id": pa.array([], pa.string())}), tmp_path / "items.parquet")
    with pytest.raises(ValueError, match="There is no row in .* A catalog needs at least one item"):
        Catalog.read({"item_id": []} if kind == "mapping" else tmp_path / f"items.{kind}")


@pytest.mark.parametrize("kind", ["csv", "arrow", "pandas"])
def test_two_columns_of_one_name_are_refused(tmp_path, kind):
    (tmp_path / "items.csv").write_text("sku,title,title\na,b,c\n")
    table = pa.table([["a"], ["b"], ["c"]], names=["sku", "title", "title"])
    frame = pd.DataFrame([["a", "b", "c"]], columns=table.column_names)
    source = {"csv": tmp_path / "items.csv", "arrow": table, "pandas": frame}[kind]
    with pytest.raises(ValueError, match="several columns `title` in .* Rename all but one"):
        Catalog.read(source, item_column="sku")


def test_missing_id_column_suggests_the_nearest():
    with pytest.raises(ValueError, match="no column `item_id`.*Did you mean 'item'"):
        Catalog.read({"item": [1]})


def test_unknown_column_names_those_there_are():
    with pytest.raises(ValueError, match="no column 'colour'; it has: title, brand, price"):
        Catalog.read(COLUMNS).column("colour")
    with pytest.raises(ValueError, match="it has: ids only"):
        Catalog([1]).texts(["title"])


def test_table_and_ids_must_agree():
    with pytest.raises(ValueError, match="one row per item, got 1 rows for 2 items"):
        Catalog(["a", "b"], pa.table({"item_id": ["a"]}))


def test_added_items_come_last_with_nothing_known():
    catalog = Catalog.read(COLUMNS).with_items(["z"])
    assert catalog.item_ids.tolist() == ["b", "a", "c", "z"]
    assert catalog.texts()[3] == ""
    assert catalog.column("price") == [3, 4, None, None]
    assert Catalog([1]).with_items([5]).item_ids.tolist() == [1, 5]


def test_items_are_added_to_columns_that_may_not_be_empty(tmp_path):
    fields = [pa.field(name, pa.string(), nullable=False) for name in ("item_id", "title")]
    pq.write_table(
        pa.table({"item_id": ["a"], "title": ["tent"]}, schema=pa.schema(fields)), tmp_path / "items.parquet"
    )
    Catalog.read(tmp_path / "items.parquet").with_items(["b"]).save(tmp_path)
    assert Catalog.load(tmp_path).column("title") == ["tent", None]


def test_select_keeps_ids_and_columns_together():
    catalog = Catalog.read(COLUMNS).select(np.array([2, 0]))
    assert catalog.item_ids.tolist() == ["c", "b"]
    assert catalog.column("price") == [None, 3]
    assert Catalog(["a", "b"]).select(np.array([1])).item_ids.tolist() == ["b"]


def test_fingerprint_follows_the_content():
    assert Catalog(["a"]).fingerprint != Catalog(["b"]).fingerprint
    assert Catalog.read({"item_id": ["a"], "title": ["x"]}).fingerprint != Catalog(["a"]).fingerprint
    assert Catalog.read(COLUMNS).fingerprint == "b8a8d6ad8b41df82"  # as it was before: prepared data is known by it


def test_fingerprint_follows_vectors(tmp_path):
    def print_of(vectors, kind=None):
        kind = kind or pa.list_(pa.float32())
        return Catalog(["a", "b"], pa.table({"item_id": ["a", "b"], "v": pa.array(vectors, kind)})).fingerprint

    table = pa.table({"item_id": ["a", "b"], "v": pa.array([[1.0, 2.0], [3.0]], pa.list_(pa.float32()))})
    cut = pa.concat_tables([table[:1], table[1:]])
    assert Catalog(["a", "b"], cut).fingerprint == Catalog(["a", "b"], table).fingerprint == print_of([[1, 2], [3]])
    assert Catalog.load(Catalog(["a", "b"], table).save(tmp_path).parent).fingerprint == print_of([[1, 2], [3]])
    vectors = [
        [[1, 2], [4]],
        [[1], [2, 3]],
        [[1, 2], [None]],
        [[1, 2], [0]],
        [[1, 2], None],
        [[1, 2], []],
        [[], [1, 2]],
    ]
    assert len({print_of(each) for each in vectors}) == len(vectors)
    kinds = [pa.list_(pa.float16(), 1), pa.list_(pa.float64()), pa.large_list(pa.int8()), pa.list_(pa.uint64())]
    assert len({print_of([[1], [0]], kind) for kind in kinds}) == len(kinds)
    assert print_of([None, [0]], pa.list_(pa.float32(), 1)) != print_of([[0], None], pa.list_(pa.float32(), 1))


def test_loading_names_a_missing_or_truncated_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="catalog.parquet does not exist"):
        Catalog.load(tmp_path)
    Catalog.read(COLUMNS).save(tmp_path)
    path = tmp_path / "catalog.parquet"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match="catalog.parquet cannot be read: it is truncated, corrupt"):
        Catalog.load(tmp_path)
