import pyarrow as pa
import pytest

from genrec.cli.table_writer import open_table_writer
from genrec.cli.tables import read_table

PARTS = [
    {"user_id": [7, 8], "item_id": ["a", "b"], "score": [-0.5, 1.25]},
    {"user_id": [9], "item_id": ["c"], "score": [2.5]},
]
SCHEMA = pa.schema({"user_id": pa.int64(), "item_id": pa.string(), "score": pa.float64()})


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_parts_read_back_as_one_table_with_its_types(tmp_path, suffix):
    path = tmp_path / f"table.{suffix}"
    with open_table_writer(path, SCHEMA) as write:
        for part in PARTS:
            write(pa.table(part))
            assert not path.exists(), "the file appears when it is whole"
        write(SCHEMA.empty_table())
    assert read_table(path).to_pydict() == {name: PARTS[0][name] + PARTS[1][name] for name in SCHEMA.names}


def test_a_failure_leaves_nothing(tmp_path):
    def write_and_fail():
        with open_table_writer(tmp_path / "table.parquet", SCHEMA) as write:
            write(pa.table(PARTS[0]))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()
    assert not list(tmp_path.iterdir())


def test_another_suffix_is_refused(tmp_path):
    with (
        pytest.raises(ValueError, match="A table is written as one of .csv, .parquet, .jsonl"),
        open_table_writer(tmp_path / "table.xlsx", SCHEMA),
    ):
        pass
    assert not list(tmp_path.iterdir())
