"""Histories in batches of users against the same table read whole."""

import gzip
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genrec.cli import history_batches
from genrec.cli.history_batches import open_history_batches
from genrec.cli.table_writer import open_table_writer
from genrec.cli.tables import read_table
from genrec.data.interactions import InteractionLog


@pytest.fixture
def table():
    """Rows of 23 users, mixed, one with very many rows."""
    draw = random.Random(0)
    users = [draw.choice([draw.randint(1, 23), draw.randint(1, 23), 5]) for _ in range(300)]
    return pa.table(
        {
            "user_id": users,
            "item_id": [f"{draw.randint(1, 9):02d}" for _ in users],
            "behavior": [draw.choice(["view", "buy"]) for _ in users],
            "timestamp": list(range(300)),
        }
    )


def batches_of(path, users=(), users_per_batch=4):
    with open_history_batches(path, users, users_per_batch) as opened:
        return opened.num_users, list(opened.batches)


def by_user(columns):
    """Return user -> rows in order, users in the order of their first rows."""
    histories = {}
    for row in zip(*columns.values()):
        histories.setdefault(row[list(columns).index("user_id")], []).append(row)
    return histories


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_batches_hold_whole_users_in_the_order_of_the_table(tmp_path, monkeypatch, table, suffix):
    monkeypatch.setattr(history_batches, "ROWS_PER_READ", 7)
    path = tmp_path / f"histories.{suffix}"
    with open_table_writer(path, table.schema) as write:
        write(table)
    num_users, batches = batches_of(path)
    expected = by_user(read_table(path).to_pydict())
    assert num_users == len(expected) == 23
    assert [len(by_user(batch)) for batch in batches] == [4, 4, 4, 4, 4, 3]
    found = {user: rows for batch in batches for user, rows in by_user(batch).items()}
    assert list(found.items()) == list(expected.items())


def test_no_more_is_held_than_a_batch_and_what_was_just_read(tmp_path, monkeypatch, table):
    monkeypatch.setattr(history_batches, "ROWS_PER_READ", 10)
    pq.write_table(table, tmp_path / "histories.parquet")
    held, find = [], history_batches._starts_of_users
    monkeypatch.setattr(history_batches, "_starts_of_users", lambda rows: held.append(len(rows)) or find(rows))
    _, batches = batches_of(tmp_path / "histories.parquet", users_per_batch=1)
    largest = max(len(batch["user_id"]) for batch in batches)
    assert max(held) <= largest + 10 < 200


def test_users_can_be_chosen(tmp_path, table):
    pq.write_table(table, tmp_path / "histories.parquet")
    num_users, (batch,) = batches_of(tmp_path / "histories.parquet", users=["5", "7"])
    assert num_users == 2
    assert set(batch["user_id"]) == {5, 7}
    with pytest.raises(ValueError, match="The histories have no user '99'"):
        batches_of(tmp_path / "histories.parquet", users=["99"])


def test_numbers_are_told_from_text_over_the_whole_file(tmp_path):
    path = tmp_path / "histories.csv"
    path.write_text("user_id;item_id;behavior;price\n1;3;view;1\n2;4;view;2.5\n1;x;view;\n")
    _, (batch,) = batches_of(path)
    assert batch == {
        "user_id": [1, 1, 2],
        "item_id": ["3", "x", "4"],
        "behavior": ["view", "view", "view"],
        "price": ["1", None, "2.5"],
    }


ODD_IDS = [
    *("7123456789012345678 7123456789012345679", "1e5 2e5", "1.0 2.0", "nan inf", "+1 +2", "-0 5", "007 8", "12 -3")
]


@pytest.mark.parametrize("ids", ODD_IDS)
@pytest.mark.parametrize("users", [True, False])
def test_ids_are_those_of_the_log(tmp_path, ids, users):
    path = tmp_path / "histories.csv"
    rows = [f"{item},{item},view,{time},3" for item, time in zip(ids.split(), ["1", "2.5"])]
    path.write_text("\n".join(["user_id,item_id,behavior,timestamp,session", *rows]))
    log = InteractionLog.read(path, behaviors="view").to_arrow().to_pydict()
    if not users:
        path.write_text("\n".join(line.partition(",")[2] for line in path.read_text().splitlines()))
    _, (batch,) = batches_of(path)
    found = pa.table(batch).to_pydict()
    assert found["item_id"] == log["item_id"]
    assert not users or found["user_id"] == log["user_id"]
    assert (found["timestamp"], found["session"]) == ([1.0, 2.5], [3, 3])


def test_a_compressed_file_is_read(tmp_path):
    path = tmp_path / "histories.csv.gz"
    path.write_bytes(gzip.compress(b"user_id,item_id,behavior\n007,1,view\n"))
    assert batches_of(path) == (1, [{"user_id": ["007"], "item_id": [1], "behavior": ["view"]}])


def test_a_table_without_users_is_one_history(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("item_id,behavior\n1,view\n2,view\n")
    num_users, (batch,) = batches_of(path)
    assert num_users == 1
    assert batch == {"item_id": [1, 2], "behavior": ["view", "view"]}
    with pytest.raises(ValueError, match="`--user` needs a column `user_id`"):
        batches_of(path, users=["1"])


def test_an_empty_table_has_no_users(tmp_path):
    path = tmp_path / "histories.csv"
    path.write_text("user_id,item_id,behavior\n")
    assert batches_of(path) == (0, [{"user_id": [], "item_id": [], "behavior": []}])


@pytest.mark.parametrize("rows_before", [1, 200_000])
def test_a_broken_file_is_named(tmp_path, rows_before):
    path = tmp_path / "histories.csv"
    path.write_text("user_id,item_id,behavior\n" + "1,2,view\n" * rows_before + "1,2,view,what\n")
    with pytest.raises(ValueError, match=r"histories.csv cannot be read: it is truncated, corrupt"):
        batches_of(path)
    with pytest.raises(FileNotFoundError):
        batches_of(tmp_path / "nothing.csv")


@pytest.mark.parametrize("has_users", [True, False])
def test_items_of_a_csv_file_are_what_the_catalog_has_and_behaviors_are_text(tmp_path, has_users):
    rows = [("7", "1"), ("gift-card", "2")]
    users = "user_id," if has_users else "", "3," if has_users else ""
    path = tmp_path / "histories.csv"
    path.write_text("".join([f"{users[0]}item_id,behavior\n", *(f"{users[1]}{i},{b}\n" for i, b in rows)]))
    digits = tmp_path / "digits.csv"
    digits.write_text(path.read_text().replace("gift-card", "8"))
    for file, has_integers, expected in [
        (path, True, [7, "gift-card"]),
        (path, None, ["7", "gift-card"]),
        (digits, True, [7, 8]),
        (digits, False, ["7", "8"]),
    ]:
        with open_history_batches(file, (), 4, has_integers) as opened:
            (batch,) = opened.batches
        assert batch["item_id"] == expected
        assert batch["behavior"] == ["1", "2"]
