import numpy as np
import pytest

from genrec.evaluation import EvaluationReport
from genrec.evaluation.records import Records
from genrec.evaluation.tables import report_table, verdicts


def report(values, has_records=True, protocol="last-session"):
    """One row per model and behavior, half of the 50 users on each side of the mean."""
    rows, records = [], []
    for model, mean in values.items():
        for behavior in ("buy", "merged"):
            fields = {"model": model, "protocol": protocol, "behavior": behavior, "metric": "ndcg@10"}
            rows.append({**fields, "value": mean, "low": mean - 0.05, "high": mean + 0.05, "records": 50})
        behaviors = np.array(["buy"] * 50, dtype=object)
        spread = np.where(np.arange(50) % 2 == 0, 0.1, -0.1)
        records.append(Records(model, protocol, np.arange(50), behaviors, {"ndcg@10": mean + spread}))
    return EvaluationReport(rows, records if has_records else [])


FULL = {"popularity": 0.1, "upper-bound": 0.5, "gamer": 0.25, "recency": 0.2}


def test_models_come_first_then_rules_then_the_bound():
    lines = report_table(report(FULL)).splitlines()
    assert lines[0] == "ndcg@10, last-session (* best of its column)"
    assert lines[1].split("  ")[0] == "model"
    assert [line.split()[0] for line in lines[2:6]] == ["gamer", "popularity", "recency", "upper-bound"]
    assert "merged (n=50)" in lines[1]
    assert lines[1].index("merged") < lines[1].index("buy")


def test_the_best_is_marked_and_the_bound_never_is():
    lines = report_table(report(FULL)).splitlines()
    assert lines[2].split() == ["gamer", "0.2500", "[0.2000,", "0.3000]", "*", "0.2500", "*"]
    assert all("*" not in line for line in lines[3:6])


def test_columns_are_aligned():
    lines = report_table(report(FULL)).splitlines()
    assert {line.index("[") for line in lines[2:6]} == {lines[2].index("[")}


def test_a_model_above_the_best_rule_beats_it():
    first, second = verdicts(report(FULL), "ndcg@10", "last-session")
    assert first.startswith(
        "gamer (0.2500) beats the best rule, recency (0.2000): difference +0.0500 (+25.0%) [+0.0500"
    )
    assert second == "gamer reaches 50% of the upper bound (0.5000)."


@pytest.mark.parametrize("value", [0.1, 0.2])
def test_a_model_not_above_the_best_rule_is_said_so(value):
    sentence = verdicts(report({**FULL, "gamer": value}), "ndcg@10", "last-session")[0]
    assert "does NOT beat the best rule, recency" in sentence
    assert sentence in report_table(report({**FULL, "gamer": value}))


def test_a_gain_within_noise_is_called_that():
    close = report({"gamer": 0.21, "recency": 0.2})
    close.records[1].values["ndcg@10"][:] = close.records[1].values["ndcg@10"][::-1]
    sentence = verdicts(close, "ndcg@10", "last-session")[0]
    assert "is above, but within noise of, the best rule" in sentence


def test_without_records_the_verdict_says_that_it_is_untested():
    sentence = verdicts(report(FULL, has_records=False), "ndcg@10", "last-session")[0]
    assert "beats the best rule" in sentence
    assert sentence.endswith("no records to test it with.")


def test_rules_alone_get_no_verdict():
    assert verdicts(report({"recency": 0.2, "popularity": 0.0}), "ndcg@10", "last-session") == []


def test_a_rule_at_zero_gives_no_percentage():
    sentence = verdicts(report({"gamer": 0.2, "popularity": 0.0}), "ndcg@10", "last-session")[0]
    assert "difference +0.2000 [" in sentence


def test_a_missing_figure_is_a_dash():
    partial = report(FULL)
    del partial.rows[0]  # popularity, buy
    assert report_table(partial).splitlines()[3].split()[-1] == "-"


def test_nobody_is_best_where_all_are_zero():
    assert report_table(report({"gamer": 0.0, "recency": 0.0})).count("*") == 1  # the legend's


def test_every_protocol_gets_a_table():
    both = report(FULL).merge(report({"gamer": 0.3}, protocol="temporal"))
    text = both.table()
    assert "ndcg@10, last-session" in text
    assert "ndcg@10, temporal" in text
    assert "temporal" not in both.table(protocol="last-session")
    assert "0.3000 *" not in text  # alone in its column: nothing to be best of


def test_markdown_has_a_rule_and_escaped_marks():
    lines = report(FULL).table(is_markdown=True).splitlines()
    assert lines[2] == "| model | merged (n=50) | buy (n=50) |"
    assert lines[3] == "| --- | --- | --- |"
    assert lines[4] == r"| gamer | 0.2500 [0.2000, 0.3000] \* | 0.2500 \* |"
    assert lines[8] == ""
    assert lines[9].startswith("- gamer (0.2500) beats")


def test_an_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="no 'hit@1' under 'last-session'. It has the metrics ndcg@10"):
        report(FULL).table("hit@1")
