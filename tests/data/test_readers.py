import gzip
import json
import re

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genrec.data.readers import id_column, open_source, text_column


def write(path, text):
    path.write_text(text)
    return path


def test_csv_values_stay_text_and_empty_ones_are_missing(tmp_path):
    source = open_source(write(tmp_path / "log.csv", 'user,n\n007,1.50\n"",x\n'))
    assert source.read(None).to_pydict() == {"user": ["007", None], "n": ["1.50", "x"]}
    assert source.read(["n"]).column_names == ["n"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_delimiter_is_found_in_the_header(tmp_path, delimiter):
    lines = [["user", "item"], ["u1", "a"]]
    path = write(tmp_path / "log.csv", "\n".join(delimiter.join(line) for line in lines) + "\n")
    assert open_source(path).read(None).to_pylist() == [{"user": "u1", "item": "a"}]


def test_csv_delimiter_can_be_given(tmp_path):
    path = write(tmp_path / "log.csv", "a;b,c,d\n1;2,3,4\n")
    assert open_source(path, delimiter=";").column_names == ["a", "b,c,d"]


def test_csv_may_have_a_byte_order_mark_quotes_and_newlines(tmp_path):
    path = tmp_path / "items.csv"
    path.write_text('item,text\n1,"two\nlines, one value"\n', encoding="utf-8-sig")
    assert open_source(path).read(None).to_pylist() == [{"item": "1", "text": "two\nlines, one value"}]


def test_csv_rows_may_be_long(tmp_path):
    path = write(tmp_path / "items.csv", f"item,text\n1,{'x' * (3 << 20)}\n2,y\n")
    assert open_source(path).read(None)["item"].to_pylist() == ["1", "2"]


def test_compressed_csv_is_read(tmp_path):
    path = tmp_path / "log.csv.gz"
    path.write_bytes(gzip.compress(b"user,item\n1,2\n"))
    assert open_source(path).read(None).to_pylist() == [{"user": "1", "item": "2"}]


def test_json_may_be_lines_or_one_array(tmp_path):
    rows = [{"user": 1, "item": "a"}, {"user": 2, "item": None}]
    lines = open_source(write(tmp_path / "log.jsonl", "\n".join(map(json.dumps, rows))))
    array = open_source(write(tmp_path / "log.json", json.dumps(rows)))
    assert lines.read(None).to_pylist() == array.read(["user", "item"]).to_pylist() == rows


def test_json_text_that_looks_like_a_date_stays_text(tmp_path):
    rows = [{"item": "2020-01-01", "n": 1, "at": "2020-01-01T08:00:00Z"}, {"n": 2, "item": "2020-01-02", "at": None}]
    path = write(tmp_path / "log.jsonl", "\n".join(map(json.dumps, rows)))
    assert open_source(path).read(None).to_pylist() == rows
    assert open_source(path).column_names == ["item", "n", "at"]


def test_json_lines_may_be_long(tmp_path):
    rows = [{"text": "x" * (3 << 20)}, {"text": "y"}]
    path = write(tmp_path / "items.jsonl", "\n".join(map(json.dumps, rows)))
    assert open_source(path).read(None).to_pylist() == rows


def test_every_key_of_a_json_array_is_a_column(tmp_path):
    path = write(tmp_path / "items.json", '[{"item": "a"}, {"title": "tent", "item": "b"}, {"price": 2, "item": "c"}]')
    assert open_source(path).read(None).to_pydict() == {
        "item": ["a", "b", "c"],
        "title": [None, "tent", None],
        "price": [None, None, 2],
    }


@pytest.mark.parametrize("name", ["items.json.gz", "items.jsonl.gz"])
def test_compressed_json_is_read(tmp_path, name):
    rows = [{"item": "é"}, {"item": "b"}]
    text = json.dumps(rows, ensure_ascii=False) if name == "items.json.gz" else "\n".join(map(json.dumps, rows))
    (tmp_path / name).write_bytes(gzip.compress(text.encode()))
    assert open_source(tmp_path / name).read(None).to_pylist() == rows


def test_several_files_are_read_in_order(tmp_path):
    for name, value in (("b", "2"), ("a", "1")):
        write(tmp_path / f"{name}.csv", f"user\n{value}\n")
    assert open_source(str(tmp_path / "*.csv")).read(None)["user"].to_pylist() == ["1", "2"]
    source = open_source([tmp_path / "b.csv", tmp_path / "a.csv"])
    assert source.read(None)["user"].to_pylist() == ["2", "1"]
    assert source.where(1) == f"row 1 (counted from 0) of {tmp_path}/b.csv and 1 more files"


def test_folder_of_parquet_files_is_one_table(tmp_path):
    for part in range(2):
        pq.write_table(pa.table({"user": [part]}), tmp_path / f"part-{part}.parquet")
    assert open_source(tmp_path).read(None)["user"].to_pylist() == [0, 1]


def test_files_with_other_columns_are_refused(tmp_path):
    write(tmp_path / "a.csv", "user\n1\n")
    write(tmp_path / "b.csv", "item\n1\n")
    with pytest.raises(ValueError, match=r"b.csv has the columns \['item'\], but .*a.csv has \['user'\]"):
        open_source(str(tmp_path / "*.csv"))


def test_files_whose_types_do_not_go_together_are_refused(tmp_path):
    columns = {"a": pa.nulls(2), "b": [1, 2], "c": [3, 4], "d": ["x", "y"]}
    for name, users in columns.items():
        pq.write_table(pa.table({"item": [1, 2], "user": users}), tmp_path / f"{name}.parquet")
    with pytest.raises(ValueError, match=r"Column `user` .* got null in .*a.parquet, int64 in .*b.*, string in .*d"):
        open_source(tmp_path).read(None)
    assert open_source(tmp_path).read(["item"]).num_rows == 8
    half = open_source([tmp_path / "a.parquet", tmp_path / "c.parquet"])
    assert half.read(None)["user"].to_pylist() == [None, None, 3, 4]


def test_row_is_named_with_its_line(tmp_path):
    csv = open_source(write(tmp_path / "log.csv", "user\n1\n"))
    assert csv.where(0) == f"row 0 (counted from 0; line 2) of {tmp_path}/log.csv"
    jsonl = open_source(write(tmp_path / "log.jsonl", '{"user": 1}\n'))
    assert jsonl.where(0) == f"row 0 (counted from 0; line 1) of {tmp_path}/log.jsonl"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.csv", "", "log.csv is empty"),
        ("log.jsonl", " \n", "log.jsonl is empty"),
        ("log.csv", "a,b\n1,2\n3\n", r"log.csv cannot be read.*Row #3: Expected 2 columns, got 1"),
        ("log.jsonl", '{"a": 1}\n{"a":', "log.jsonl cannot be read"),
        ("log.json", '[{"a": 1}', "log.json cannot be read"),
        ("log.json", '[{"a": 1}, {"a": "x"}]', "log.json cannot be read"),
        ("log.json", '[{"a": 1}, 7]', r"must be an array of objects, one per row, got 7 in row 1 \(counted from 0\)"),
        ("log.parquet", "no", "log.parquet cannot be read: it is truncated, corrupt"),
        ("log.xls", "no", "unknown ending '.xls'"),
    ],
)
def test_broken_file_is_named(tmp_path, name, content, message):
    with pytest.raises(ValueError, match=message):
        open_source(write(tmp_path / name, content)).read(None)


def test_a_file_that_breaks_after_its_header_is_named(tmp_path):
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"user": list(range(1000))}), path)
    content = path.read_bytes()
    path.write_bytes(content[:4] + bytes(200) + content[204:])
    source = open_source(path)
    with pytest.raises(ValueError, match="log.parquet cannot be read"):
        source.read(None)


def test_missing_file_and_empty_folder_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.csv does not exist"):
        open_source(tmp_path / "nothing.csv")
    with pytest.raises(ValueError, match="holds no parquet file"):
        open_source(tmp_path)


def test_unknown_kind_of_source_is_refused():
    with pytest.raises(ValueError, match=r"got builtins\.int"):
        open_source(3)


@pytest.mark.parametrize("as_frame", [False, True])
def test_column_of_mixed_types_names_the_row(as_frame):
    columns = {"user": ["a", None, 3]}
    source = pd.DataFrame(columns, dtype=object) if as_frame else columns
    with pytest.raises(ValueError, match=r"Column `user` of the .*row 0 is str, row 2 \(counted from 0\) is int"):
        open_source(source)


def test_missing_column_suggests_the_nearest():
    source = open_source({"userid": [1], "item": [2]})
    with pytest.raises(ValueError, match="no column `user_id` for the user.*Did you mean 'userid'.*userid, item"):
        source.require({"user": "user_id"})
    with pytest.raises(ValueError, match=r"no column `zzz` for the user in the table. Its columns are"):
        source.require({"user": "zzz"})


def test_column_that_stands_twice_is_refused(tmp_path):
    source = open_source(write(tmp_path / "log.csv", "user,user\n1,2\n"))
    with pytest.raises(ValueError, match="several columns `user`"):
        source.require({"user": "user"})


def test_frame_column_that_stands_twice_is_refused():
    source = open_source(pd.DataFrame([[1, 2, 3]], columns=["user", "item", "item"]))
    assert source.read(["user"]).to_pydict() == {"user": [1]}
    with pytest.raises(ValueError, match="several columns `item` in the pandas table. Rename all but one"):
        source.require({"user": "user", "item": "item"})


def test_columns_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="must have one length, got 2 values of `user` and 1 of `item`"):
        open_source({"user": [1, 2], "item": [1]})


def ids(values, id_type="auto", is_text=False, tmp_path=None):
    source = open_source({"id": values})
    if is_text:
        source = open_source(write(tmp_path / "ids.csv", "id\n" + "\n".join(values) + "\n"))
    return id_column(source.read(["id"])["id"], "id", source, id_type).to_pylist()


def test_ids_keep_their_type():
    assert ids([1, 2]) == [1, 2]
    assert ids(["1", "2"]) == ["1", "2"]
    assert ids([1, 2], id_type="string") == ["1", "2"]
    assert ids(pa.array(["a", "b", "a"]).dictionary_encode()) == ["a", "b", "a"]
    assert ids(pa.array(["a"], pa.large_string())) == ["a"]


def test_csv_ids_are_integers_only_if_all_are_written_so(tmp_path):
    assert ids(["1", "-20", "0"], is_text=True, tmp_path=tmp_path) == [1, -20, 0]
    assert ids(["1", "x"], is_text=True, tmp_path=tmp_path) == ["1", "x"]
    assert ids(["1", "007"], is_text=True, tmp_path=tmp_path) == ["1", "007"]
    assert ids(["1", "2"], "string", is_text=True, tmp_path=tmp_path) == ["1", "2"]


def test_ids_of_other_types_are_refused():
    with pytest.raises(ValueError, match=r"Column `id` of the table has the type double \(row 0: 1.5\)"):
        ids([1.5])
    with pytest.raises(ValueError, match="beyond 64 bits"):
        ids(pa.array([2**64 - 1], pa.uint64()))
    with pytest.raises(ValueError, match=re.escape("`id_type` must be 'auto' or 'string', got 'int'")):
        ids([1], id_type="int")


def test_text_may_be_written_as_integers():
    source = open_source({"behavior": [1, 2], "price": [0.5, 1.0]})
    assert text_column(source.read(None)["behavior"], "behavior", source).to_pylist() == ["1", "2"]
    with pytest.raises(ValueError, match="`price` of the table has the type double, but must be text or integers"):
        text_column(source.read(None)["price"], "price", source)


def test_fingerprint_follows_content_not_chunks(tmp_path):
    whole = pa.table({"user": [1, 2, 3]})
    cut = pa.concat_tables([whole.slice(0, 1), whole.slice(1)])
    other = pa.table({"user": [1, 2, 4]})
    prints = [open_source(table).fingerprint(table) for table in (whole, cut, other)]
    assert prints[0] == prints[1] != prints[2]
    path = write(tmp_path / "log.csv", "user\n1\n")
    before = open_source(path).fingerprint(whole)
    write(path, "user\n2\n")
    assert open_source(path).fingerprint(whole) != before
