from itertools import pairwise

import numpy as np
import pytest

from genrec.data.histories import Queries
from genrec.recommender import CooccurrenceRecommender, PopularityRecommender
from genrec.recommender.tuning import merged_ndcg

from .small_logs import DAY, ITEMS, log, random_log, scores_of


def naive_cooccurrence(train, history, rule):
    """Return each item's score, by the definition in the docstring."""
    n = len(ITEMS)
    counts, events = np.zeros((n, n)), np.zeros(n)
    for one in train:
        items = one.items.tolist()
        for place, item in enumerate(items):
            events[item] += 1
            for distance in range(1, rule.window + 1):
                if place + distance < len(items) and items[place + distance] != item:
                    counts[item, items[place + distance]] += 1 / distance
                    if not rule.is_directed:
                        counts[items[place + distance], item] += 1 / distance
    weights = counts / np.maximum(events, 1) ** rule.damping
    totals = weights.sum(axis=1, keepdims=True)
    weights = np.divide(weights, totals, out=np.zeros_like(weights), where=totals > 0)
    scores = 1e-6 * events / (events.max() + 1)
    for events_ago, (item, time) in enumerate(zip(history.items[::-1].tolist(), history.times[::-1], strict=True)):
        weight = rule.recency_decay**events_ago
        if rule.half_life_days is not None:
            weight *= 2 ** (-(history.times[-1] - time) / DAY / rule.half_life_days)
        scores += weight * weights[item]
        scores[item] += weight * rule.repeat_weight
    return scores


@pytest.mark.parametrize(
    "rule",
    [
        CooccurrenceRecommender(),
        CooccurrenceRecommender(window=1, repeat_weight=0),
        CooccurrenceRecommender(window=3, is_directed=False, damping=0.5, recency_decay=1, repeat_weight=2),
        CooccurrenceRecommender(window=100, damping=1, recency_decay=0.3),
        CooccurrenceRecommender(half_life_days=5, recency_decay=0.9),
    ],
    ids=["default", "next only", "both ways", "whole history", "half life"],
)
def test_cooccurrence_agrees_with_its_definition(rule):
    train, histories = random_log(30, 0), random_log(30, 1)
    listed = rule.fit(train).recommend(histories, k=6)
    for row, history in enumerate(histories):
        expected = naive_cooccurrence(train, history, rule)
        assert listed[row].scores == pytest.approx(expected[[ITEMS.index(item) for item in listed[row].item_ids]])
        assert all(first >= second for first, second in pairwise(listed[row].scores))


def test_cooccurrence_by_hand():
    train = log([("a", "view"), ("b", "view"), ("c", "view")], [("a", "view"), ("b", "view")])
    rule = CooccurrenceRecommender(window=2, recency_decay=0.5, repeat_weight=0.25).fit(train)
    scores = scores_of(rule, [("b", "view"), ("a", "view")])
    # From a: b counts 1 + 1, c counts 1/2. From b: only c. The popularity of an item adds less than 1e-6.
    assert scores["b"] == pytest.approx(2 / 2.5 + 0.5 * 0.25, abs=1e-6)
    assert scores["c"] == pytest.approx(0.5 / 2.5 + 0.5 * 1, abs=1e-6)
    assert scores["a"] == pytest.approx(0.25, abs=1e-6)
    assert scores["d"] == 0


def test_users_are_not_neighbors():
    rule = CooccurrenceRecommender(repeat_weight=0).fit(log([("a", "view")], [("b", "view")], [("c", "view")]))
    assert max(scores_of(rule, [("a", "view")]).values()) < 1e-6


def test_without_repeats_the_own_item_comes_only_through_others():
    train = log([("a", "view"), ("a", "view"), ("b", "view")])
    rule = CooccurrenceRecommender(repeat_weight=0).fit(train)
    assert rule.recommend([[("a", "view")]], k=1)[0].item_ids == ["b"]


def test_cooccurrence_is_popularity_for_a_cold_user():
    train = random_log(30, 0)
    ours, theirs = CooccurrenceRecommender().fit(train), PopularityRecommender().fit(train)
    assert ours.recommend([[]], k=6)[0].item_ids == theirs.recommend([[]], k=6)[0].item_ids


def test_the_half_life_by_hand():
    train = log([("f", "view")])
    history = [("a", "view", 0), ("b", "view", 10 * DAY), ("a", "buy", 15 * DAY)]
    scores = scores_of(CooccurrenceRecommender(half_life_days=5, recency_decay=1, repeat_weight=1).fit(train), history)
    assert scores["a"] == pytest.approx(1 + 2**-3, abs=1e-6)
    assert scores["b"] == pytest.approx(2**-1, abs=1e-6)


def test_how_late_the_query_is_changes_no_order():
    rule = CooccurrenceRecommender(half_life_days=1).fit(random_log(30, 0))
    history = [("a", "view", 5 * DAY), ("b", "view", 6 * DAY)]
    soon, late = (rule.recommend([history], k=6, at=day * DAY)[0] for day in (7, 5000))
    assert soon == late


def test_without_times_the_half_life_changes_nothing_and_is_not_tuned():
    train, histories = random_log(20, 0, has_times=False), random_log(20, 1, has_times=False)
    plain, decayed = (CooccurrenceRecommender(half_life_days=days).fit(train) for days in (None, 2))
    assert (plain.recommend(histories, k=6).scores == decayed.recommend(histories, k=6).scores).all()
    plain.tune(Queries(histories, random_log(20, 2, low=1)))
    assert {trial["half_life_days"] for trial in plain.trials} == {None}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"half_life_days": 0}, "`half_life_days` must be positive, got 0. Pass None"),
        ({"window": 0}, "`window`.* must be at least 1, got 0"),
        ({"recency_decay": 0}, "`recency_decay` must lie above 0 and be at most 1, got 0"),
        ({"recency_decay": 1.5}, "at most 1, got 1.5"),
        ({"repeat_weight": -1}, "`repeat_weight` must not be negative, got -1"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        CooccurrenceRecommender(**settings)


def test_every_trial_is_what_a_fresh_fit_reaches():
    """The counts shared between trials are those that each trial's settings would count."""
    train, queries = random_log(40, 0), Queries(random_log(30, 1), random_log(30, 2, low=1))
    rule = CooccurrenceRecommender().fit(train).tune(queries, k=3)
    assert len(rule.trials) > 15
    for trial in rule.trials[::3]:
        settings = {name: value for name, value in trial.items() if name != "figure"}
        assert merged_ndcg(CooccurrenceRecommender(**settings).fit(train), queries, k=3) == trial["figure"]
