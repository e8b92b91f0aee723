import json
from dataclasses import replace

import numpy as np
import pytest

from genrec.data.histories import Queries, as_histories
from genrec.data.splits import split_temporal
from genrec.recommender import (
    CooccurrenceRecommender,
    PopularityRecommender,
    RecencyRecommender,
    RuleRecommender,
    TrendingRecommender,
)
from genrec.recommender.rule_base import MAX_TUNING_QUERIES
from genrec.recommender.tuning import merged_ndcg

from .small_logs import BEHAVIORS, DAY, ITEMS, LADDER, log, random_log, scores_of

RULES = [PopularityRecommender, TrendingRecommender, RecencyRecommender, CooccurrenceRecommender]


# Popularity


def test_popularity_counts_events():
    train = log([("a", "view"), ("a", "view"), ("b", "buy")], [("b", "view"), ("a", "cart")])
    assert scores_of(PopularityRecommender().fit(train), []) == {"a": 3, "b": 2, "c": 0, "d": 0, "e": 0, "f": 0}


def test_popularity_of_a_behavior_counts_only_that():
    train = log([("a", "view"), ("a", "view"), ("b", "buy"), ("c", "cart")])
    rule = PopularityRecommender(behavior_specific=True).fit(train)
    assert [rule.recommend([[]], k=1, behavior=name)[0].item_ids for name in BEHAVIORS] == [["a"], ["c"], ["b"]]
    assert rule.recommend([[]], k=1)[0].item_ids == ["b"]  # the target behavior


def test_popularity_halves_with_every_half_life():
    train = log([("a", "view", 0), ("b", "view", 10 * DAY)], [("a", "view", 5 * DAY), ("c", "view", 20 * DAY)])
    scores = scores_of(PopularityRecommender(half_life_days=5).fit(train), [])
    assert scores["c"] == 1
    assert scores["b"] == pytest.approx(2 ** -(10 / 5))
    assert scores["a"] == pytest.approx(2 ** -(20 / 5) + 2 ** -(15 / 5))


def test_popularity_without_times_cannot_decay():
    with pytest.raises(ValueError, match="`half_life_days` needs the time of each event"):
        PopularityRecommender(half_life_days=5).fit(log([("a", "view")]))
    with pytest.raises(ValueError, match="`half_life_days` must be positive, got 0"):
        PopularityRecommender(half_life_days=0).fit(log([("a", "view", 5)]))


def test_tuning_without_times_tries_no_half_life():
    train = random_log(20, 0, has_times=False)
    rule = PopularityRecommender().fit(train).tune(Queries(train, random_log(20, 1)))
    assert {trial["half_life_days"] for trial in rule.trials} == {None}
    assert {trial["behavior_specific"] for trial in rule.trials} == {False, True}


# Recency

HISTORY = [("a", "view"), ("b", "cart"), ("c", "buy"), ("a", "cart"), ("d", "view"), ("c", "view")]


@pytest.mark.parametrize(
    ("skip_done", "order", "behavior", "expected"),
    [
        (False, "recent", "buy", "cdab"),
        (False, "recent", "view", "cdab"),
        (True, "recent", "buy", "dab"),  # c was bought
        (True, "recent", "view", "b"),  # only b was not viewed
        (False, "level", "buy", "abcd"),  # in the cart: a after b; viewed: c after d
        (True, "level", "buy", "abd"),
        (False, "level", "cart", "cdab"),  # viewed: c, d, a; b was never only viewed
        (False, "level", "view", "cdab"),  # nothing is weaker: by recency
    ],
)
def test_recency_orders_by_hand(skip_done, order, behavior, expected):
    rule = RecencyRecommender(skip_done=skip_done, order=order).fit(log([("f", "view")]))
    listed = rule.recommend([HISTORY], k=6, behavior=behavior)[0].item_ids
    assert "".join(listed[: len(expected)]) == expected
    assert listed[len(expected)] == "f"  # then the popular


def test_recency_puts_done_items_last():
    train = log([("c", "view")] * 5 + [("e", "view")])
    listed = RecencyRecommender(skip_done=True).fit(train).recommend([HISTORY], k=6, behavior="buy")[0].item_ids
    assert listed[3] == "e"
    assert listed[-1] == "c"  # although the most popular


def test_recency_is_popularity_for_a_cold_user():
    train = random_log(30, 0)
    ours, theirs = RecencyRecommender().fit(train), PopularityRecommender().fit(train)
    assert ours.recommend([[]], k=6)[0].item_ids == theirs.recommend([[]], k=6)[0].item_ids


def test_recency_agrees_with_a_loop():
    train, histories = random_log(20, 0), random_log(50, 1)
    popularity = PopularityRecommender().fit(train).recommend([[]], k=6)[0].item_ids
    listed = RecencyRecommender().fit(train).recommend(histories, k=6)
    for row, history in enumerate(histories):
        own = list(dict.fromkeys(ITEMS[item] for item in history.items[::-1]))
        assert listed[row].item_ids == own + [item for item in popularity if item not in own]


def test_an_unknown_order_is_refused():
    with pytest.raises(ValueError, match="`order` must be 'recent' or 'level', got 'newest'"):
        RecencyRecommender(order="newest")


# All rules


@pytest.fixture(params=RULES, ids=lambda rule: rule.__name__)
def rule(request):
    return request.param()


def test_a_rule_gives_k_distinct_items(rule):
    histories = random_log(40, 1)
    listed = rule.fit(random_log(40, 0)).recommend(histories, k=4, behavior="cart")
    assert len(listed) == 40
    assert all(len(set(one.item_ids)) == 4 for one in listed)


def test_a_rule_is_deterministic(rule):
    train, histories = random_log(40, 0), random_log(40, 1)
    first, second = (type(rule)().fit(train).recommend(histories, k=6) for _ in range(2))
    assert (first.items == second.items).all()


def test_who_else_is_asked_changes_nothing(rule):
    histories = random_log(20, 1)
    rule.fit(random_log(40, 0))
    together = rule.recommend(histories, k=6).items
    alone = np.concatenate([rule.recommend(histories.select(np.array([row])), k=6).items for row in range(20)])
    assert (together == alone).all()


def test_a_rule_takes_the_filters(rule):
    rule.fit(random_log(40, 0))
    history = [("a", "view"), ("b", "buy")]
    assert not {"a", "b", "c"} & set(rule.recommend([history], k=6, exclude_seen=True, deny=["c"])[0].item_ids)
    assert set(rule.recommend([history], k=6, allow=["e", "a"])[0].item_ids) == {"a", "e"}
    with pytest.raises(ValueError, match="names the item 'x'"):
        rule.recommend([[("x", "view")]], unknown_items="error")


@pytest.mark.parametrize("behavior", BEHAVIORS)
def test_a_saved_rule_recommends_the_same(rule, behavior, tmp_path):
    queries = Queries(random_log(30, 1), random_log(30, 2, low=1))
    rule.fit(random_log(40, 0)).tune(queries).save_pretrained(tmp_path)
    loaded = type(rule).from_pretrained(tmp_path)
    assert (loaded.settings, loaded.trials) == (rule.settings, rule.trials)
    before, after = (one.recommend(queries.histories, k=6, behavior=behavior) for one in (rule, loaded))
    assert (before.items == after.items).all()
    assert (before.scores == after.scores).all()
    assert after.item_ids.tolist() == ITEMS
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".json", ".json", ".safetensors"]


def test_integer_ids_come_back_as_integers(tmp_path):
    train = as_histories([[(7, "buy"), (9, "view")]], [7, 8, 9], LADDER)
    RecencyRecommender().fit(train).save_pretrained(tmp_path)
    loaded = RecencyRecommender.from_pretrained(tmp_path)
    assert loaded.recommend([[(8, "view")]], k=3)[0].item_ids[0] == 8


def test_a_folder_of_another_rule_is_refused(tmp_path):
    RecencyRecommender().fit(random_log(5, 0, low=1)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a RecencyRecommender, not a PopularityRecommender"):
        PopularityRecommender.from_pretrained(tmp_path)


def test_whichever_rule_a_folder_holds_can_be_loaded(rule, tmp_path):
    rule.fit(random_log(10, 0, low=1)).save_pretrained(tmp_path)
    loaded = RuleRecommender.from_pretrained(tmp_path)
    assert type(loaded) is type(rule)
    history = [("a", "view", 5), ("c", "buy", 9)]
    assert loaded.recommend([history], k=6)[0] == rule.recommend([history], k=6)[0]


@pytest.mark.parametrize("name", ["Recommendations", "lazy_exports", "__name__", "Nothing"])
def test_a_folder_that_names_no_rule_is_refused(name, tmp_path):
    RecencyRecommender().fit(random_log(5, 0, low=1)).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "recommender.json").read_text())
    (tmp_path / "recommender.json").write_text(json.dumps({**config, "recommender": name}))
    with pytest.raises(ValueError, match=f"holds a {name}, not a RuleRecommender"):
        RuleRecommender.from_pretrained(tmp_path)


def test_a_truncated_file_is_refused(rule, tmp_path):
    rule.fit(random_log(5, 0, low=1)).save_pretrained(tmp_path)
    arrays = tmp_path / "recommender.safetensors"
    arrays.write_bytes(arrays.read_bytes()[:-8])
    with pytest.raises(ValueError, match="truncated or corrupt"):
        type(rule).from_pretrained(tmp_path)


def test_the_saved_config_is_readable(tmp_path):
    CooccurrenceRecommender(window=3).fit(random_log(5, 0, low=1)).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "recommender.json").read_text())
    assert config["recommender"] == "CooccurrenceRecommender"
    assert config["behaviors"] == LADDER
    assert config["settings"]["window"] == 3


def test_an_unfitted_rule_says_so(rule, tmp_path):
    with pytest.raises(ValueError, match="has not been fitted. Call `fit"):
        rule.recommend([[]])
    with pytest.raises(ValueError, match="has not been fitted"):
        rule.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="Call `fit\\(train\\)` before `tune`"):
        rule.tune(Queries(random_log(3, 0), random_log(3, 1)))


def test_an_empty_log_is_refused(rule):
    with pytest.raises(ValueError, match="hold no event"):
        rule.fit(log([], []))


# The moment of the query


def test_what_is_not_before_the_query_reaches_no_rule(rule):
    """Changing, adding or removing events at or after the query changes no score."""
    rule.fit(random_log(40, 0))
    past = [("a", "view", 10 * DAY), ("b", "buy", 20 * DAY)]
    futures = [[], [("c", "buy", 30 * DAY)], [("d", "view", 30 * DAY), ("a", "buy", 31 * DAY)]]
    lists = [rule.recommend([past + future], k=6, at=30 * DAY) for future in futures]
    assert [listed.num_later for listed in lists] == [0, 1, 2]
    assert lists[0][0] == lists[1][0] == lists[2][0]


def test_perturbing_the_future_changes_nothing_in_a_temporal_split(rule):
    """From the log to the lists: fitted, tuned and asked, no rule knows of what happens from the query on."""
    histories = random_log(60, 0, low=3)
    cut = split_temporal(histories).cuts[1]
    is_later = histories.times >= cut
    changed = replace(histories, items=np.where(is_later, (histories.items + 1) % 6, histories.items))
    answers = []
    for known in (histories, changed):
        split = split_temporal(known)
        assert split.cuts[1] == cut
        fitted = type(rule)().fit(split.train).tune(split.validation)
        answers.append((fitted.settings, fitted.trials, fitted.recommend(known, k=6, at=cut)))
    assert answers[0][:2] == answers[1][:2]
    assert (answers[0][2].scores == answers[1][2].scores).all()
    assert (answers[0][2].items == answers[1][2].items).all()
    assert answers[0][2].num_later == is_later.sum()


def test_a_query_before_all_that_happened_is_a_cold_users(rule):
    rule.fit(random_log(40, 0))
    early, cold = (rule.recommend([history], k=6, at=0) for history in ([("a", "view", 5), ("b", "buy", 7)], []))
    assert early[0] == cold[0]
    assert len(early[0]) == 6
    assert (early.num_later, cold.num_later) == (2, 0)


# Tuning


def test_tuning_takes_the_best_of_its_trials(rule):
    train, queries = random_log(60, 0), Queries(random_log(60, 1), random_log(60, 2, low=1))
    rule.fit(train).tune(queries, k=3)
    figures = [trial["figure"] for trial in rule.trials]
    assert merged_ndcg(rule, queries, k=3) == max(figures) >= figures[0]
    fresh = type(rule)(**rule.settings).fit(train)
    assert merged_ndcg(fresh, queries, k=3) == max(figures)


def test_tuning_finds_that_bought_items_are_not_bought_again():
    past = log(*[[("a", "view"), ("b", "buy")]] * 10)
    future = log(*[[("a", "buy")]] * 10)
    rule = RecencyRecommender().fit(past).tune(Queries(past, future))
    assert rule.settings == {"skip_done": True, "order": "recent"}
    assert rule.recommend([[("a", "view"), ("b", "buy")]], k=1)[0].item_ids == ["a"]


def test_tuning_can_be_limited_to_some_settings():
    past = log(*[[("a", "view"), ("b", "buy")]] * 10)
    future = log(*[[("a", "buy")]] * 10)
    rule = RecencyRecommender(skip_done=False).fit(past).tune(Queries(past, future), settings=["order"])
    assert rule.settings == {"skip_done": False, "order": "level"}
    assert len(rule.trials) == 2
    rule.tune(Queries(past, future), settings=[])
    assert len(rule.trials) == 1
    with pytest.raises(ValueError, match="`settings` names 'window', but RecencyRecommender tunes skip_done, order"):
        rule.tune(Queries(past, future), settings=["order", "window"])


def test_tuning_finds_what_is_new():
    old = [("a", "view", 0), ("a", "view", 1), ("a", "view", 2)]
    train = log(old, old, [("b", "view", 100 * DAY), ("b", "view", 100 * DAY)])
    queries = Queries(log([], []), log([("b", "view")], [("b", "view")]))
    rule = PopularityRecommender().fit(train).tune(queries, k=1)
    assert rule.half_life_days == 30.0  # 90 days leave a with 6 * 2**(-100/90) = 2.8 against 2 for b
    assert rule.recommend([[]], k=1)[0].item_ids == ["b"]


def test_tuning_draws_from_many_queries_by_seed(monkeypatch):
    sizes = []

    def spy(recommender, queries, k):
        sizes.append((len(queries), queries.histories.users.tolist()))
        return 0.0

    monkeypatch.setattr("genrec.recommender.rule_base.merged_ndcg", spy)
    train = random_log(30, 0)
    rule = RecencyRecommender().fit(train)
    for seed in (0, 0, 1):
        rule.tune(Queries(train, train), max_queries=10, seed=seed)
    rule.tune(Queries(train, train))
    assert {size for size, _ in sizes} == {10, 30}
    drawn = [users for size, users in sizes if size == 10]
    assert drawn[0] == drawn[len(drawn) // 3] == sorted(set(drawn[0]))
    assert drawn[0] != drawn[-1]
    assert MAX_TUNING_QUERIES >= 1000
