import pyarrow as pa
import pytest

from genrec.cli.tables import read_table, write_table


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_a_written_table_reads_back_with_its_types(tmp_path, suffix):
    table = pa.table({"user_id": [7, 8], "item_id": ["a", "b"], "score": [-0.5, 1.25]})
    write_table(table, tmp_path / f"table.{suffix}")
    read = read_table(tmp_path / f"table.{suffix}")
    assert read.to_pydict() == table.to_pydict()


def test_another_suffix_is_refused_and_nothing_written(tmp_path):
    with pytest.raises(ValueError, match="A table is written as one of .csv, .parquet, .jsonl"):
        write_table(pa.table({"a": [1]}), tmp_path / "table.xlsx")
    assert not list(tmp_path.iterdir())
