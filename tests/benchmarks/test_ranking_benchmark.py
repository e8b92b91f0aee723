"""The ranking benchmark's arithmetic and its rows; the runs themselves are `--quick`'s business."""

import pytest

from benchmarks.quality.ranking import Run, main, mean_and_interval, read_histories, table, write
from genrec.evaluation.benchmark_csv import read_benchmark_csv

RUNS = [Run({"auroc": 0.6, "gauc": 0.5}, 40, 9, 2.0), Run({"auroc": 0.8, "gauc": 0.5}, 40, 9, 4.0)]


def test_the_interval_is_students():
    """Two seeds, 0.6 and 0.8: mean 0.7, standard error 0.1, one degree of freedom."""
    assert mean_and_interval([0.6, 0.8]) == pytest.approx((0.7, 0.7 - 1.2706, 0.7 + 1.2706))
    assert mean_and_interval([0.6]) == (0.6, None, None)
    same = mean_and_interval([0.5] * 30)
    assert same == (0.5, 0.5, 0.5)


def test_a_file_holds_each_seed_and_their_mean(tmp_path):
    csv = tmp_path / "figures.csv"
    write(csv, "market-ranking", "din", RUNS)
    write(csv, "market-ranking", "din", RUNS)  # again, which replaces
    rows = read_benchmark_csv(csv)
    assert [(row["metric"], row["seed"], row["value"], row["records"]) for row in rows] == [
        ("auroc", "0", "0.6", "40"),
        ("auroc", "1", "0.8", "40"),
        ("auroc", "all", "0.7", "40"),
        ("gauc", "0", "0.5", "9"),
        ("gauc", "1", "0.5", "9"),
        ("gauc", "all", "0.5", "9"),
    ]
    assert {row["behavior"] for row in rows} == {"conversion"}
    assert rows[2]["seconds"] == "6"


def test_the_table_has_a_line_per_model():
    lines = table({"din": RUNS, "gamer-ranking": RUNS[:1]}).splitlines()
    assert [line.split()[0] for line in lines] == ["model", "din", "gamer-ranking"]
    assert lines[2].split()[1:] == ["0.6000", "0.5000", "2"]


def test_a_log_needs_its_ladder(tmp_path):
    with pytest.raises(ValueError, match="A log needs `--behaviors`"):
        read_histories(tmp_path, None, 10)
    with pytest.raises(FileNotFoundError):
        main(["--log", str(tmp_path), "--behaviors", "view,buy"])
