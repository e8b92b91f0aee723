import numpy as np
import pytest

from genrec.data.histories import Queries, as_histories
from genrec.evaluation import evaluate
from genrec.recommender.rules import PopularityRecommender, RecencyRecommender
from genrec.recommender.tuning import MAX_PASSES, coordinate_search, merged_ndcg

ITEMS = list("abcdefgh")
LADDER = "view,cart,buy"
BEHAVIORS = ("view", "cart", "buy")


def random_queries(num_users, seed, target_items=ITEMS):
    rng = np.random.default_rng(seed)

    def some(low, items):
        return [(items[rng.integers(len(items))], BEHAVIORS[rng.integers(3)]) for _ in range(rng.integers(low, 6))]

    return Queries(
        as_histories([some(0, ITEMS) for _ in range(num_users)], ITEMS, LADDER),
        as_histories([some(0, target_items) for _ in range(num_users)], target_items, LADDER),
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("k", [1, 3, 10])
def test_it_is_the_merged_ndcg_of_the_evaluation(seed, k):
    queries = random_queries(30, seed)
    for rule in (RecencyRecommender(order="level"), PopularityRecommender(behavior_specific=True)):
        rule.fit(queries.histories)
        figure = evaluate(rule, queries, k=k, metrics=[f"ndcg@{k}"], num_bootstrap=1).value(f"ndcg@{k}")
        assert merged_ndcg(rule, queries, k) == pytest.approx(figure, abs=1e-12)


def test_targets_are_matched_by_id():
    queries = random_queries(30, 0, target_items=["h", "new", "a"])
    rule = RecencyRecommender().fit(queries.histories)
    figure = evaluate(rule, queries, metrics=["ndcg@10"], num_bootstrap=1).value("ndcg@10")
    assert merged_ndcg(rule, queries) == pytest.approx(figure, abs=1e-12)


def test_queries_without_targets_are_refused():
    queries = Queries(*(as_histories([[], []], ITEMS, LADDER) for _ in range(2)))
    with pytest.raises(ValueError, match="2 queries have no target"):
        merged_ndcg(RecencyRecommender(), queries)


def test_the_search_follows_each_setting_to_its_best():
    grid = {"x": [0, 1, 2, 3], "y": [0, 1, 2, 3]}
    trials = coordinate_search(
        lambda s: -3 * (s["x"] - 2) ** 2 - (s["y"] - s["x"]) ** 2, {"x": 0, "y": 0, "z": 9}, grid
    )
    assert max(trials, key=lambda trial: trial["figure"]) == {"x": 2, "y": 2, "z": 9, "figure": 0}


def test_nothing_is_measured_twice():
    measured = []

    def measure(settings):
        measured.append(tuple(settings.values()))
        return -abs(settings["x"] - 1)

    trials = coordinate_search(measure, {"x": 0, "y": 0}, {"x": [0, 1, 2], "y": [0, 1]})
    assert len(measured) == len(set(measured)) == len(trials)
    assert measured[0] == (0, 0)


def test_of_equal_settings_the_first_stays():
    trials = coordinate_search(lambda s: 1.0, {"x": 5}, {"x": [1, 2, 5]})
    assert max(trials, key=lambda trial: trial["figure"])["x"] == 5


def test_the_search_ends_after_its_passes():
    """A figure that always wants x one above y, and y equal to x, climbs by one in each pass."""
    grid = {"x": range(20), "y": range(20)}
    trials = coordinate_search(
        lambda s: s["x"] - 100 * (s["x"] > s["y"] + 1) + s["y"] - 100 * (s["y"] > s["x"]), {"x": 0, "y": 0}, grid
    )
    best = max(trials, key=lambda trial: trial["figure"])
    assert (best["x"], best["y"]) == (MAX_PASSES, MAX_PASSES)
