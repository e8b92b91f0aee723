import json

import numpy as np
import pytest

from genrec.evaluation import EvaluationReport
from genrec.evaluation.records import Records
from genrec.evaluation.report import records_path


def row(model="gamer", behavior="merged", metric="ndcg@10", value=0.2, protocol="last-session", low=0.1, high=0.3):
    fields = {"model": model, "protocol": protocol, "behavior": behavior, "metric": metric}
    return {**fields, "value": value, "low": low, "high": high, "records": 4}


def records(model="gamer", protocol="last-session", users=(1, 2, 2), **values):
    values = values or {"ndcg@10": [0.5, 0.25, np.nan]}
    behaviors = np.array(["view", "view", "buy"], dtype=object)
    return Records(
        model, protocol, np.asarray(users), behaviors, {name: np.array(v, dtype=float) for name, v in values.items()}
    )


def test_value_finds_one_figure():
    report = EvaluationReport([row(), row(behavior="buy", value=0.4), row(model="recency", value=0.3)])
    assert report.value("ndcg@10", model="gamer") == 0.2
    assert report.value("ndcg@10", "buy") == 0.4


def test_value_refuses_to_guess():
    report = EvaluationReport([row(), row(model="recency")])
    with pytest.raises(ValueError, match=r"2 rows match.*models \['gamer', 'recency'\]"):
        report.value("ndcg@10")
    with pytest.raises(ValueError, match=r"0 rows match.*metrics \['ndcg@10'\]"):
        report.value("hit@1", model="gamer")


def test_records_of_refuses_to_guess():
    report = EvaluationReport([], [records(), records(protocol="temporal")])
    assert report.records_of(protocol="temporal").protocol == "temporal"
    with pytest.raises(ValueError, match=r"2 runs match model='gamer', protocol=None"):
        report.records_of("gamer")
    with pytest.raises(ValueError, match=r"0 runs match model='x'"):
        report.records_of("x")


def test_models_and_protocols_keep_their_order():
    report = EvaluationReport([row("b"), row("a"), row("c", protocol="temporal"), row("b", protocol="temporal")])
    assert report.models() == ["b", "a", "c"]
    assert report.models("temporal") == ["c", "b"]
    assert report.protocols() == ["last-session", "temporal"]


def test_merge_replaces_equal_figures_and_keeps_the_rest():
    old = EvaluationReport([row(value=0.1), row("recency")], [records()], {("gamer", "last-session"): {"seconds": 1.0}})
    new = EvaluationReport([row(value=0.9)], [records(users=(7, 8, 8))], {("gamer", "last-session"): {"seconds": 2.0}})
    merged = old.with_metadata(seed=1, name="x").merge(new.with_metadata(seed=2))
    assert [(r["model"], r["value"]) for r in merged.rows] == [("gamer", 0.9), ("recency", 0.2)]
    assert merged.records_of().users.tolist() == [7, 8, 8]
    assert merged.runs == {("gamer", "last-session"): {"seconds": 2.0}}
    assert merged.metadata == {"seed": 2, "name": "x"}
    assert [r["value"] for r in old.rows] == [0.1, 0.2]


@pytest.mark.parametrize("users", [(1, 2, 2), ("u1", "u2", "u2")])
def test_a_saved_report_loads_as_it_was(tmp_path, users):
    runs = {("gamer", "last-session"): {"seconds": 1.5, "peak_mb": 80.0}}
    parts = [
        records(users=np.array(users, dtype=object) if isinstance(users[0], str) else users),
        records("recency", "temporal", users, **{"hit@1": [1, 0, 1]}),
    ]
    report = EvaluationReport([row(), row(metric="coverage@10", low=None, high=None)], parts, runs, {"seed": 3})
    path = tmp_path / "report.json"
    report.save(path)
    loaded = EvaluationReport.load(path)
    assert (loaded.rows, loaded.runs, loaded.metadata) == (report.rows, runs, {"seed": 3})
    for before, after in zip(parts, loaded.records, strict=True):
        assert (after.model, after.protocol) == (before.model, before.protocol)
        assert after.users.tolist() == before.users.tolist()
        assert after.behaviors.tolist() == before.behaviors.tolist()
        assert after.values.keys() == before.values.keys()
        for metric, values in before.values.items():
            np.testing.assert_array_equal(after.values[metric], values)


def test_the_file_holds_results_as_rows(tmp_path):
    EvaluationReport([row()]).save(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["results"] == [row()]


def test_a_report_without_records_leaves_no_stale_records_file(tmp_path):
    path = tmp_path / "report.json"
    EvaluationReport([row()], [records()]).save(path)
    assert records_path(path).name == "report.records.parquet"
    EvaluationReport([row()]).save(path)
    assert not records_path(path).exists()
    assert EvaluationReport.load(path).records == []


def test_a_broken_report_is_refused(tmp_path):
    path = tmp_path / "report.json"
    path.write_text('{"results": [')
    with pytest.raises(ValueError, match="truncated or corrupt"):
        EvaluationReport.load(path)
    path.write_text('{"a": 1}')
    with pytest.raises(ValueError, match="no evaluation report: it has no `results`"):
        EvaluationReport.load(path)


def test_broken_records_are_refused(tmp_path):
    path = tmp_path / "report.json"
    EvaluationReport([row()], [records()]).save(path)
    whole = records_path(path).read_bytes()
    records_path(path).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"report\.records\.parquet is truncated or corrupt"):
        EvaluationReport.load(path)


def test_records_group_by_behavior():
    kept = records()
    assert kept.groups(has_merged=True) == ["view", "buy", "merged"]
    assert kept.groups(has_merged=False) == ["view", "buy"]
    assert kept.is_in("view").tolist() == [True, True, False]
    assert kept.is_in("merged").all()
    numbers, num_users = kept.user_numbers()
    assert (numbers.tolist(), num_users) == ([0, 1, 1], 2)
