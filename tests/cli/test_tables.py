import pytest

from genrec.cli.tables import read_table


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,b,c\n1,007,1.5\n2,2,2\n", {"a": [1, 2], "b": ["007", "2"], "c": [1.5, 2.0]}),
        ("a,b\n1,x\n,y\n", {"a": [1, None], "b": ["x", "y"]}),
    ],
)
def test_columns_of_numbers_become_numbers(tmp_path, text, expected):
    (tmp_path / "table.csv").write_text(text)
    assert read_table(tmp_path / "table.csv").to_pydict() == expected


def test_columns_that_are_no_fractions_stay_text(tmp_path):
    (tmp_path / "table.csv").write_text("item_id,timestamp,session\n1.0,1.5,1\n2.0,2,1.0\n")
    assert read_table(tmp_path / "table.csv", fractions_in=["timestamp", "session"]).to_pydict() == {
        "item_id": ["1.0", "2.0"],
        "timestamp": [1.5, 2.0],
        "session": [1.0, 1.0],
    }
