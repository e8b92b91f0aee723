import pytest

from genrec.evaluation import EvaluationReport
from genrec.evaluation.benchmark_csv import COLUMNS, read_benchmark_csv, update_benchmark_csv


def report(value=0.25, metric="ndcg@10", low=0.2):
    fields = {"model": "gamer", "protocol": "last-session", "behavior": "merged", "metric": metric}
    rows = [{**fields, "value": value, "low": low, "high": low and low + 0.1, "records": 7}]
    return EvaluationReport(rows, runs={("gamer", "last-session"): {"seconds": 1.5, "peak_mb": 300.0}})


def test_a_row_has_the_columns_of_the_contract(tmp_path):
    path = tmp_path / "log.csv"
    update_benchmark_csv(path, report(), config="small", commit="abc", seed=1)
    assert path.read_text() == (
        "model,config,commit,seed,protocol,behavior,metric,value,low,high,records,seconds,peak_mb\n"
        "gamer,small,abc,1,last-session,merged,ndcg@10,0.25,0.2,0.3,7,1.5,300\n"
    )


def test_a_figure_measured_again_takes_the_place_of_the_old_one(tmp_path):
    path = tmp_path / "log.csv"
    update_benchmark_csv(path, report(0.1), config="small", commit="abc", seed=1)
    update_benchmark_csv(path, report(0.2), config="small", commit="abc", seed=2)
    update_benchmark_csv(path, report(0.3), config="small", commit="def", seed=1)
    rows = read_benchmark_csv(path)
    assert [(row["seed"], row["commit"], row["value"]) for row in rows] == [("1", "def", "0.3"), ("2", "abc", "0.2")]


def test_other_rows_stay_as_they_are(tmp_path):
    path = tmp_path / "log.csv"
    other = "sasrec,c,abc,0,temporal,buy,hit@1,0.123456789,,,5,,\n"
    path.write_text(",".join(COLUMNS) + "\n" + other)
    update_benchmark_csv(path, report(), config="small", commit="abc", seed=1)
    assert path.read_text().splitlines(keepends=True)[1] == other


def test_metrics_can_be_chosen(tmp_path):
    both = report().merge(report(metric="hit@1"))
    written = update_benchmark_csv(tmp_path / "a.csv", both, config="c", commit="x", seed=0, metrics=["hit@1"])
    assert [row["metric"] for row in written] == ["hit@1"]
    assert read_benchmark_csv(tmp_path / "a.csv") == [{name: written[0][name] for name in COLUMNS}]


def test_a_figure_without_interval_has_empty_ends(tmp_path):
    (row,) = update_benchmark_csv(tmp_path / "a.csv", report(low=None), config="c", commit="x", seed=0)
    assert (row["low"], row["high"]) == ("", "")


def test_time_and_memory_of_the_run_may_be_given(tmp_path):
    written = update_benchmark_csv(
        tmp_path / "a.csv", report(), config="c", commit="x", seed=0, seconds=61.0, peak_mb=512.0
    )
    assert (written[0]["seconds"], written[0]["peak_mb"]) == ("61", "512")


def test_a_file_with_other_columns_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"must have the columns model,config,.* got a,b\. Write to another file"):
        update_benchmark_csv(path, report(), config="c", commit="x", seed=0)
    assert path.read_text() == "a,b\n1,2\n"


def test_a_missing_file_has_no_rows(tmp_path):
    assert read_benchmark_csv(tmp_path / "none.csv") == []
