import math
import re
from pathlib import Path

import numpy as np
import pytest

from genrec.data.histories import Queries, as_histories
from genrec.evaluation import evaluate, evaluator
from genrec.evaluation.evaluator import peak_memory_mb
from genrec.recommender import RecencyRecommender, Recommendations, ScoringRecommender

ITEMS = ["a", "b", "c", "d", "e"]
LADDER = "view,cart,buy"
BEHAVIORS = ("view", "cart", "buy")


class FixedLists:
    """Recommends the same ids to everyone, whatever is asked, over a catalog of its own."""

    def __init__(self, ids, catalog=ITEMS):
        self.catalog = np.array(catalog, dtype=object)
        self.rows = [catalog.index(item) if item is not None else -1 for item in ids]

    def recommend(self, histories, k=10, behavior=None):
        items = np.tile(self.rows[:k], (len(histories), 1))
        return Recommendations(items, np.where(items < 0, -np.inf, 0.0), self.catalog, histories.users)


def two_users():
    past = as_histories([[("a", "view")], [("d", "view"), ("e", "cart")]], ITEMS, LADDER)
    future = as_histories([[("b", "view"), ("c", "buy"), ("a", "buy")], [("b", "view")]], ITEMS, LADDER)
    return Queries(past, future)


def random_queries(num_users, seed):
    rng = np.random.default_rng(seed)

    def some(low):
        return [(ITEMS[rng.integers(5)], BEHAVIORS[rng.integers(3)]) for _ in range(rng.integers(low, 5))]

    return Queries(*(as_histories([some(low) for _ in range(num_users)], ITEMS, LADDER) for low in (0, 1)))


def test_figures_by_hand():
    report = evaluate(FixedLists(["b", "c", "e"]), two_users(), k=3, metrics=["ndcg@3", "recall@3", "hit@1"])
    assert report.value("ndcg@3", "view") == 1.0  # both users viewed b
    buy = (1 / math.log2(3)) / (1 + 1 / math.log2(3))  # c on rank 2, two targets
    assert report.value("ndcg@3", "buy") == pytest.approx(buy)
    assert report.value("ndcg@3") == pytest.approx((1 + 1 + buy) / 3)  # micro average: three records
    assert report.value("recall@3") == pytest.approx((1 + 1 + 1 / 2) / 3)
    assert report.value("hit@1") == pytest.approx(2 / 3)
    assert [row["records"] for row in report.select(metric="ndcg@3")] == [2, 1, 3]


def test_rows_have_the_fields_of_the_report_file():
    report = evaluate(FixedLists(["b"]), two_users(), k=1, metrics=["hit@1"], name="fixed", protocol="temporal")
    row = report.select(behavior="merged", metric="hit@1")[0]
    assert list(row) == ["model", "protocol", "behavior", "metric", "value", "low", "high", "records"]
    assert (row["model"], row["protocol"], row["value"], row["records"]) == ("fixed", "temporal", 2 / 3, 3)
    assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1


def naive(recommender, queries, behavior, k):
    """Loop over users: NDCG of every record, and whether its targets are new to the user."""
    values, first_time = [], []
    for history, future in zip(queries.histories, queries.targets, strict=True):
        number = BEHAVIORS.index(behavior)
        wanted = {i for i, b in zip(future.items.tolist(), future.behaviors.tolist(), strict=True) if b == number}
        if not wanted:
            continue
        seen = set(history.items.tolist())
        events = zip(history.items.tolist(), history.behaviors.tolist(), strict=True)
        listed = recommender.recommend([[(ITEMS[i], BEHAVIORS[b]) for i, b in events]], k=k, behavior=behavior)[0]
        ranks = [rank for rank, item in enumerate(listed.item_ids, start=1) if ITEMS.index(item) in wanted]
        best = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(wanted)) + 1))
        values.append(sum(1 / math.log2(rank + 1) for rank in ranks) / best)
        new = wanted - seen
        if new:
            ranks = [rank for rank, item in enumerate(listed.item_ids, start=1) if ITEMS.index(item) in new]
            best = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(new)) + 1))
            first_time.append(sum(1 / math.log2(rank + 1) for rank in ranks) / best)
    return values, first_time


@pytest.mark.parametrize("chunk", [3, 1000])
def test_evaluate_agrees_with_a_loop_over_users(chunk, monkeypatch):
    monkeypatch.setattr(evaluator, "QUERIES_PER_CALL", chunk)
    queries = random_queries(40, seed=0)
    recommender = RecencyRecommender(skip_done=True).fit(queries.histories)
    report = evaluate(recommender, queries, k=3, metrics=["ndcg@3"], num_bootstrap=10)
    merged, merged_first = [], []
    for behavior in BEHAVIORS:
        values, first_time = naive(recommender, queries, behavior, k=3)
        assert report.value("ndcg@3", behavior) == pytest.approx(np.mean(values))
        assert report.value("ndcg@3/first-time", behavior) == pytest.approx(np.mean(first_time))
        merged, merged_first = merged + values, merged_first + first_time
    assert report.value("ndcg@3") == pytest.approx(np.mean(merged))
    assert report.value("ndcg@3/first-time") == pytest.approx(np.mean(merged_first))
    assert report.select(metric="ndcg@3/first-time", behavior="merged")[0]["records"] == len(merged_first)


def test_each_behavior_is_asked_for_by_name():
    class Spy(FixedLists):
        asked: list = []

        def recommend(self, histories, k=10, behavior=None):
            self.asked.append((behavior, histories.users.tolist()))
            return super().recommend(histories, k, behavior)

    evaluate(Spy(["b"]), two_users(), k=1, metrics=["hit@1"], num_bootstrap=1)
    assert Spy.asked == [("view", [0, 1]), ("buy", [0])]


class OncePerUser(RecencyRecommender):
    """Answers for several behaviors at once, as a model does whose prompt they share, and notes whom it was asked."""

    def recommend_each(self, histories, k=10, behaviors=()):
        self.asked.append((tuple(behaviors), histories.users.tolist()))
        return {behavior: super(OncePerUser, self).recommend(histories, k, behavior) for behavior in behaviors}

    def recommend(self, histories, k=10, behavior=None):
        self.asked.append(((behavior,), histories.users.tolist()))
        return super().recommend(histories, k, behavior)


@pytest.mark.parametrize("chunk", [3, 1000])
def test_a_recommender_that_shares_prompts_is_asked_once_per_user(chunk, monkeypatch):
    monkeypatch.setattr(evaluator, "QUERIES_PER_CALL", chunk)
    queries = random_queries(40, seed=0)
    wanted = [
        {BEHAVIORS[b] for b in future.behaviors.tolist()} for future in queries.targets if len(future.behaviors) > 0
    ]
    sharing = OncePerUser(skip_done=True).fit(queries.histories)
    sharing.asked = []
    report = evaluate(sharing, queries, k=3, num_bootstrap=5)
    answered = [(user, set(behaviors)) for behaviors, users in sharing.asked for user in users]
    assert sorted(user for user, _ in answered) == list(range(40))
    assert [behaviors for _, behaviors in sorted(answered, key=lambda pair: pair[0])] == wanted
    assert max(len(users) for _, users in sharing.asked) <= chunk

    one_by_one = evaluate(RecencyRecommender(skip_done=True).fit(queries.histories), queries, k=3, num_bootstrap=5)
    assert report.rows == one_by_one.rows
    for metric, values in one_by_one.records_of().values.items():
        np.testing.assert_array_equal(report.records_of().values[metric], values)


def test_items_are_matched_by_id_across_catalogs():
    ours, theirs = FixedLists(["c", "b"]), FixedLists(["c", "b"], catalog=["z", "e", "c", "b"])
    same = [evaluate(one, two_users(), k=2, metrics=["ndcg@2", "coverage@2"]).rows for one in (ours, theirs)]
    assert same[0] == same[1]
    foreign = evaluate(FixedLists(["z", "b"], catalog=["z", "b"]), two_users(), k=2, metrics=["hit@1", "hit@2"])
    assert (foreign.value("hit@1"), foreign.value("hit@2")) == (0, 2 / 3)


def test_short_lists_are_allowed():
    report = evaluate(FixedLists(["b", None, None]), two_users(), k=3, metrics=["hit@3", "coverage@3", "seen@3"])
    assert report.value("hit@3") == 2 / 3
    assert report.value("coverage@3") == 1 / 5
    assert report.value("seen@3") == 0


def test_empty_lists_count_as_misses_and_have_no_seen_share():
    report = evaluate(FixedLists([None]), two_users(), k=1, metrics=["hit@1", "seen@1"])
    assert report.value("hit@1") == 0
    assert report.select(metric="seen@1") == []


def test_cold_and_warm_count_only_their_targets():
    train = as_histories([[("a", "view"), ("b", "view")]], ITEMS, LADDER)
    report = evaluate(FixedLists(["c", "b", "a"]), two_users(), k=3, metrics=["recall@3", "novelty@3"], train=train)
    cold = report.select(metric="recall@3/cold", behavior="merged")[0]
    assert (cold["value"], cold["records"]) == (1.0, 1)  # only c, bought by the first user, is cold
    assert report.select(metric="recall@3/warm", behavior="buy")[0]["value"] == 1.0
    assert report.select(metric="recall@3/warm", behavior="merged")[0]["records"] == 3
    # Smoothed shares: a and b 2/7, the others 1/7.
    assert report.value("novelty@3") == pytest.approx((2 * math.log2(7 / 2) + math.log2(7)) / 3)


def test_without_train_there_is_no_cold_slice_and_no_novelty():
    report = evaluate(FixedLists(["b"]), two_users(), k=1)
    metrics = {row["metric"] for row in report.rows}
    assert "ndcg@1/repeat" in metrics
    assert not metrics & {"ndcg@1/cold", "ndcg@1/warm", "novelty@1"}


def test_seen_share_and_coverage_by_hand():
    report = evaluate(FixedLists(["a", "d", "b"]), two_users(), k=3, metrics=["seen@2", "coverage@3"])
    assert report.value("seen@2") == 1 / 2  # each user has seen one of a and d
    row = report.select(metric="coverage@3", behavior="merged")[0]
    assert (row["value"], row["low"], row["high"], row["records"]) == (3 / 5, None, None, 3)


def test_asking_some_behaviors_gives_no_merged_rows():
    report = evaluate(FixedLists(["b"]), two_users(), k=1, metrics=["hit@1", "coverage@1"], behaviors=["buy", "buy"])
    assert {row["behavior"] for row in report.rows} == {"buy"}
    assert report.value("hit@1", "buy") == 0


def test_records_keep_every_value():
    records = evaluate(FixedLists(["b"]), two_users(), k=1, metrics=["hit@1"]).records_of()
    assert records.users.tolist() == [0, 1, 0]
    assert records.behaviors.tolist() == ["view", "view", "buy"]
    assert records.values["hit@1"].tolist() == [1, 1, 0]
    assert records.values["hit@1/repeat"].tolist()[2] == 0  # a was viewed before
    assert np.isnan(records.values["hit@1/repeat"][:2]).all()


def test_intervals_repeat_with_the_seed():
    queries = random_queries(30, seed=1)
    first, second, other = (
        evaluate(FixedLists(["b", "a"]), queries, k=2, metrics=["ndcg@2"], num_bootstrap=50, seed=seed).rows
        for seed in (0, 0, 1)
    )
    assert first == second
    assert first != other


def test_a_certain_figure_has_no_width():
    row = evaluate(FixedLists(["b"]), two_users(), k=1, metrics=["hit@1"]).select(behavior="view")[0]
    assert (row["value"], row["low"], row["high"]) == (1, 1, 1)


def test_time_and_memory_are_measured():
    report = evaluate(FixedLists(["b"]), two_users(), k=1, metrics=["hit@1"], progress=True)
    run = report.runs["gamer", "last-session"]
    assert 0 <= run["seconds"] < 5
    assert 20 < run["peak_mb"] < 100_000
    assert run["confidence"] == 0.95


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="compares with what Linux says")
def test_peak_memory_is_what_the_system_says():
    status = Path("/proc/self/status").read_text()
    kibibytes = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])
    assert peak_memory_mb() == pytest.approx(kibibytes * 1024 / 1e6, rel=0.02)


def test_a_metric_deeper_than_the_list_is_refused():
    with pytest.raises(ValueError, match="'ndcg@5' looks at 5 items, but `k` asks for 2"):
        evaluate(FixedLists(["a", "b"]), two_users(), k=2, metrics=["ndcg@5"])


def test_queries_without_targets_are_refused():
    empty = Queries(two_users().histories, as_histories([[], []], ITEMS, LADDER))
    with pytest.raises(ValueError, match="None of the 2 queries has a target"):
        evaluate(FixedLists(["a"]), empty, k=1)
    with pytest.raises(ValueError, match=r"target of \['cart'\]"):
        evaluate(FixedLists(["a"]), two_users(), k=1, behaviors=["cart"])


def test_a_repeated_item_is_refused():
    with pytest.raises(ValueError, match="gave the item 'b' twice to one user"):
        evaluate(FixedLists(["b", "b"]), two_users(), k=2)


def test_lists_of_a_wrong_shape_are_refused():
    with pytest.raises(ValueError, match=r"must give 3 places for each of 2 users, got \(2, 2\)"):
        evaluate(FixedLists(["a", "b"]), two_users(), k=3)


def test_a_perfect_oracle_scores_one():
    """A recommender that knows the targets reaches 1 in every cut, whatever the number of targets."""
    queries = random_queries(25, seed=3)
    truth = dict(zip(queries.targets.users.tolist(), queries.targets, strict=True))

    def score(histories, behavior):
        scores = np.zeros((len(histories), len(ITEMS)))
        for row, user in enumerate(histories.users.tolist()):
            wanted = truth[user].items[truth[user].behaviors == BEHAVIORS.index(behavior)]
            scores[row, wanted] = 1
        return scores

    report = evaluate(ScoringRecommender(score, ITEMS, LADDER), queries, k=5, num_bootstrap=10)
    assert {report.value(metric) for metric in ("hit@5", "recall@5", "ndcg@1", "ndcg@5", "mrr@5")} == {1.0}
