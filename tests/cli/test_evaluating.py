"""What is compared with the model, and what is said about logs whose times have something wrong with them."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from genrec.cli import evaluating
from genrec.cli.evaluating import RULES, evaluate_split, fitted_rule, recommenders
from genrec.cli.recipe import BASELINES, EvaluationSettings
from genrec.data import DataConfig, InteractionLog, prepare
from genrec.evaluation import tables
from genrec.recommender import PopularityRecommender, TrendingRecommender

HOUR = 3600


@pytest.fixture
def prepared(tmp_path):
    """Six users with four sessions each, told by a column: user 0's last begins in the second the one before ends."""
    events = [
        (user, session, place, (session * 30 + user) * HOUR + place * 60)
        for user in range(6)
        for session in range(4)
        for place in range(3)
    ]
    events = [(u, s, p, 60 * HOUR + 120 if u == 0 and s == 3 and p == 0 else time) for u, s, p, time in events]
    columns = {
        "user_id": [user for user, *_ in events],
        "item_id": [(user * session + place) % 7 for user, session, place, _ in events],
        "behavior": [("view", "buy")[place % 2] for *_, place, _ in events],
        "timestamp": [time for *_, time in events],
        "visit": [session for _, session, *_ in events],
    }
    log = InteractionLog.read(columns, behaviors="view,buy", columns={"session": "visit"})
    config = DataConfig(behaviors="view,buy", sessions="column", session_column="visit")
    return prepare(log, config, tmp_path / "prepared")


@pytest.fixture
def run(prepared, monkeypatch):
    """As much of a run as evaluation looks at; a rule stands for the model."""
    model = PopularityRecommender().fit(prepared.split("last-session").train)
    monkeypatch.setattr(evaluating, "load_recommender", lambda run, protocol: model)
    said = []
    recipe = SimpleNamespace(evaluation=EvaluationSettings(num_bootstrap=5), market=None, seed=0)
    return SimpleNamespace(recipe=recipe, prepared=prepared, say=said.append, said=said)


def test_the_rules_have_the_same_names_everywhere():
    assert tuple(RULES) == BASELINES == tables.RULES


def test_every_rule_is_compared_and_recency_is_left_plain(run):
    compared = recommenders(run, "last-session")
    assert list(compared) == ["gamer", *RULES]
    assert (compared["recency"].skip_done, compared["recency"].order, compared["recency"].trials) == (
        False,
        "recent",
        [],
    )
    assert compared["recency-undone"].skip_done
    assert {trial["skip_done"] for trial in compared["recency-undone"].trials} == {True}
    assert {trial["order"] for trial in compared["recency-undone"].trials} == {"level", "recent"}
    assert len(compared["co-occurrence"].trials) > 10


def test_trending_counts_in_the_whole_log(prepared):
    rule = fitted_rule("trending", prepared, "last-session")
    assert isinstance(rule, TrendingRecommender)
    last = prepared.histories.times.max()
    assert rule.recommend([[]], k=1)[0] == rule.recommend([[]], k=1, at=last + 1)[0]
    assert prepared.split("last-session").train.times.max() < last


def test_a_log_without_times_has_no_trend(run):
    manifest = run.prepared.manifest
    timeless = {**manifest, "source": {**manifest["source"], "has_times": False}}
    run.prepared = replace(run.prepared, manifest=timeless)
    assert list(recommenders(run, "last-session")) == ["gamer", *(name for name in RULES if name != "trending")]
    assert run.said == ["  last-session: no trending, because the log has no times"]


def test_interactions_that_are_not_before_their_query_are_counted_in_the_report(run):
    report = evaluate_split(run, "last-session")
    assert report.metadata == {"num_later_last-session": 1}
    assert run.said[0].startswith("  last-session: left out 1 interactions that are not before their query")
    assert {row["model"] for row in report.rows} == {"gamer", *RULES}


def test_a_log_in_order_says_nothing_about_it(run):
    report = evaluate_split(run, "temporal")
    assert report.metadata == {}
    assert "left out" not in "".join(run.said)
