import csv
import json

import pyarrow.parquet as pq
import pytest

from genrec.cli import recommend

ITEM_IDS = set(range(1, 26))


@pytest.fixture
def histories(tmp_path):
    path = tmp_path / "histories.csv"
    path.write_text(
        "user_id,item_id,behavior,timestamp\n7,3,view,1700000000\n7,4,cart,1700000060\n8,5,view,1700000000\n8,999,buy,1700000009\n"
    )
    return path


def test_lists_are_printed_by_user(finished, genrec, histories):
    result = genrec("recommend", finished.run / "checkpoint", histories, "-k", 5)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "Skipped 1 interactions whose item the catalog lacks."
    assert [line for line in lines if line.startswith("user")] == ["user 7", "user 8"]
    assert {int(line.split()[1]) for line in lines if line.startswith("   ")} <= ITEM_IDS


@pytest.mark.parametrize("moment", ["1700000060", "2023-11-14T22:14:20"])
def test_a_moment_leaves_out_what_came_then_or_later(finished, genrec, histories, tmp_path, moment):
    earlier = tmp_path / "earlier.csv"
    earlier.write_text(
        "user_id,item_id,behavior,timestamp\n7,3,view,1700000000\n8,5,view,1700000000\n8,999,buy,1700000009\n"
    )
    arguments = ["-k", 5, "--at", moment]
    result = genrec("recommend", finished.run / "checkpoint", histories, *arguments)
    expected = genrec("recommend", finished.run / "checkpoint", earlier, *arguments)
    assert result.exit_code == expected.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines.pop(1) == "Skipped 1 interactions that are not before the moment asked about."
    assert lines == expected.stdout.splitlines()
    assert "no moment" in genrec("recommend", finished.run / "checkpoint", histories, "--at", "noon").stderr


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_lists_are_written_as_a_table(finished, genrec, histories, tmp_path, suffix):
    path = tmp_path / f"lists.{suffix}"
    result = genrec(
        "recommend", finished.run / "checkpoint", histories, "-k", 3, "--output", path, "--behavior", "view"
    )
    assert result.exit_code == 0, result.output
    if suffix == "parquet":
        rows = pq.read_table(path).to_pylist()
    elif suffix == "csv":
        rows = list(csv.DictReader(path.open()))
    else:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(int(row["user_id"]), int(row["rank"])) for row in rows] == [(7, 1), (7, 2), (7, 3), (8, 1), (8, 2), (8, 3)]
    assert {int(row["item_id"]) for row in rows} <= ITEM_IDS


def test_a_long_table_is_answered_in_batches_of_users(finished, genrec, tmp_path, monkeypatch):
    path = tmp_path / "histories.csv"
    rows = [f"u{row % 5},{1 + row % 25},view" for row in range(30)]
    path.write_text("\n".join(["user_id,item_id,behavior", *rows]) + "\nu9,999,view\n")
    arguments = ["recommend", finished.run / "checkpoint", path, "-k", 3, "--output"]
    assert genrec(*arguments, tmp_path / "whole.parquet").exit_code == 0
    monkeypatch.setattr(recommend, "USERS_PER_BATCH", 2)
    result = genrec(*arguments, tmp_path / "parts.parquet")
    assert result.stdout.splitlines()[0] == "Skipped 1 interactions whose item the catalog lacks."
    assert result.stdout.splitlines()[1].startswith("Wrote 6 users' lists")
    parts = pq.ParquetFile(tmp_path / "parts.parquet")
    assert [parts.metadata.row_group(group).num_rows for group in range(3)] == [6, 6, 6]
    whole, found = pq.read_table(tmp_path / "whole.parquet").to_pydict(), parts.read().to_pydict()
    assert found.pop("score") == pytest.approx(whole.pop("score"), abs=1e-5)
    assert found == whole


def test_only_the_first_users_are_printed(finished, genrec, tmp_path):
    path = tmp_path / "histories.csv"
    path.write_text("user_id,item_id,behavior\n" + "".join(f"u{row},{1 + row % 25},view\n" for row in range(23)))
    lines = genrec("recommend", finished.run / "checkpoint", path, "-k", 1).stdout.splitlines()
    assert [line for line in lines if line.startswith("user")] == [f"user u{row}" for row in range(20)]
    assert lines[-1] == "... and 3 more users; write them all with `--output FILE`."


def test_an_empty_table_gives_an_empty_table(finished, genrec, tmp_path):
    (tmp_path / "histories.csv").write_text("user_id,item_id,behavior\n")
    arguments = ["recommend", finished.run / "checkpoint", tmp_path / "histories.csv"]
    result = genrec(*arguments, "--output", tmp_path / "lists.parquet")
    assert result.exit_code == 0, result.output
    assert pq.read_table(tmp_path / "lists.parquet").num_rows == 0
    assert genrec(*arguments).stdout == ""


def test_a_user_of_the_runs_own_data_needs_no_table(finished, genrec):
    result = genrec("recommend", finished.run / "checkpoint", "--user", "u3", "--exclude-seen", "-k", 2)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == "user u3"


def test_users_of_a_table_can_be_chosen(finished, genrec, histories):
    result = genrec("recommend", finished.run / "checkpoint", histories, "--user", "8")
    assert [line for line in result.stdout.splitlines() if line.startswith("user")] == ["user 8"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Nobody is asked about. Give a table of histories, or `--user ID`"),
        (["--user", "nobody"], "The run's data has no user 'nobody'."),
        (["HISTORIES", "--user", "9"], "The histories have no user '9'."),
        (["HISTORIES", "--unknown-items", "error"], "which is not in the catalog of 25 items"),
        (["HISTORIES", "--output", "lists.xlsx"], "`--output` must end in one of .csv, .parquet, .jsonl"),
        (["HISTORIES", "--behavior", "steal"], "Unknown behavior 'steal'. The ladder has: view, cart, buy."),
    ],
)
def test_mistakes_get_a_message(finished, genrec, histories, arguments, message):
    arguments = [histories if argument == "HISTORIES" else argument for argument in arguments]
    result = genrec("recommend", finished.run / "checkpoint", *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr


def test_a_missing_checkpoint_is_said_so(genrec, tmp_path, histories):
    result = genrec("recommend", tmp_path / "nothing", histories)
    assert result.exit_code == 2
    assert "There is no folder" in result.stderr
