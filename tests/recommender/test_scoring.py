"""`ScoringRecommender`: top k of any scores, filters, ties, bad input."""

import numpy as np
import pytest

from genrec.data.histories import Histories, as_histories
from genrec.recommender import scoring
from genrec.recommender.scoring import ScoringRecommender, tie_ranks, top_k

ITEMS = np.array(["a", "b", "c", "d", "e"], dtype=object)
LADDER = "view,cart,buy"
TABLE = np.array([[0.1, 0.5, 0.3, 0.2, 0.4], [5.0, 1.0, 4.0, 2.0, 3.0]])


def table_scores(histories: Histories, behavior: str) -> np.ndarray:
    return TABLE[histories.users]


def recommender() -> ScoringRecommender:
    return ScoringRecommender(table_scores, ITEMS, LADDER)


HISTORIES = [[("b", "view"), ("e", "cart")], [("a", "buy")]]


def naive_top_k(scores: np.ndarray, k: int) -> list[list[int]]:
    """Sort whole rows: by score, then by the items' places in the shuffle."""
    ranks = tie_ranks(scores.shape[1]).tolist()
    rows = [[item for item, value in enumerate(row) if value > -np.inf] for row in scores.tolist()]
    return [sorted(row, key=lambda item: (-scores[user, item], ranks[item]))[:k] for user, row in enumerate(rows)]


def test_items_come_best_first():
    lists = recommender().recommend(HISTORIES, k=3)
    assert [row.item_ids for row in lists] == [["b", "e", "c"], ["a", "c", "e"]]
    assert lists[0].scores == [0.5, 0.4, 0.3]


def test_filters_shape_the_list():
    lists = recommender().recommend(HISTORIES, k=5, exclude_seen=True, deny=["c", "unknown"])
    assert [row.item_ids for row in lists] == [["d", "a"], ["e", "d", "b"]]
    lists = recommender().recommend(HISTORIES, k=5, allow=["d", "a", "b"], deny=["d"])
    assert [row.item_ids for row in lists] == [["b", "a"], ["a", "b"]]


def test_masks_filter_for_all_users_or_for_each():
    allow = np.array([True, False, True, False, False])
    each = np.array([[False, True, True, True, True], [True] * 5])
    lists = recommender().recommend(HISTORIES, k=5, allow=allow)
    assert [row.item_ids for row in lists] == [["c", "a"], ["a", "c"]]
    lists = recommender().recommend(HISTORIES, k=5, allow=each, deny=~allow)
    assert [row.item_ids for row in lists] == [["c"], ["a", "c"]]
    lists = recommender().recommend(HISTORIES, k=5, allow=each, deny=~each)
    assert [len(row) for row in lists] == [4, 5]


def test_a_filter_that_forbids_everything_gives_empty_lists():
    lists = recommender().recommend(HISTORIES, k=2, allow=[])
    assert [row.item_ids for row in lists] == [[], []]
    assert (lists.items == -1).all()
    assert (lists.scores == -np.inf).all()


def test_many_users_are_scored_in_chunks_with_their_own_filters(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scoring, "SCORES_PER_CHUNK", 10)
    calls = []

    def scores(histories: Histories, behavior: str) -> np.ndarray:
        calls.append((len(histories), behavior))
        return np.tile(np.arange(5.0), (len(histories), 1))

    histories = [[(ITEMS[user % 5], "view")] for user in range(7)]
    deny = np.zeros((7, 5), dtype=bool)
    deny[6, 4] = True
    lists = ScoringRecommender(scores, ITEMS, LADDER).recommend(histories, 5, "cart", exclude_seen=True, deny=deny)
    assert calls == [(2, "cart"), (2, "cart"), (2, "cart"), (1, "cart")]
    for user, row in enumerate(lists):
        expected = [item for number, item in enumerate(ITEMS) if number != user % 5 and not deny[user, number]]
        assert row.item_ids == expected[::-1]


def test_the_target_behavior_is_the_default():
    asked = []
    one = ScoringRecommender(lambda histories, behavior: asked.append(behavior) or np.zeros((1, 5)), ITEMS, LADDER)
    one.recommend([[]])
    one.recommend([[]], behavior="cart")
    assert asked == ["buy", "cart"]


@pytest.mark.parametrize("num_values", [1, 3, 1000], ids=["all-tied", "many-ties", "few-ties"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
@pytest.mark.parametrize("k", [1, 3, 6, 11, 12, 20])
def test_top_k_equals_sorting(k: int, dtype: type, num_values: int):
    generator = np.random.default_rng(k)
    scores = generator.integers(num_values, size=(40, 12)).astype(dtype)
    if dtype is not np.int64:
        scores[generator.random(scores.shape) < 0.4] = -np.inf
    items, values = top_k(scores, k)
    for user, expected in enumerate(naive_top_k(scores, k)):
        assert items[user].tolist() == expected + [-1] * (k - len(expected))
        assert values[user].tolist() == scores[user, expected].tolist() + [-np.inf] * (k - len(expected))


def test_read_only_scores_are_read_and_left_alone():
    """Such as one row for all users."""
    row = np.array([0.0, 2.0, 1.0])
    assert top_k(np.broadcast_to(row, (3, 3)), k=2)[0].tolist() == [[1, 2]] * 3
    assert row.tolist() == [0.0, 2.0, 1.0]


def test_ties_follow_one_fixed_shuffle_and_not_the_catalog():
    items, _ = top_k(np.zeros((2, 1000)), k=1000)
    assert items[0].tolist() == items[1].tolist()
    assert abs(np.corrcoef(items[0], np.arange(1000))[0, 1]) < 0.1
    first_three, _ = top_k(np.zeros((1, 1000)), k=3)
    assert first_three[0].tolist() == items[0, :3].tolist()
    assert top_k(np.zeros((1, 1000)), k=1000)[0].tolist() == items[:1].tolist()


def test_an_empty_catalog_and_no_users():
    items, values = top_k(np.zeros((2, 0)), k=2)
    assert items.tolist() == [[-1, -1]] * 2
    assert np.isneginf(values).all()
    assert len(recommender().recommend([])) == 0


def test_unknown_items_are_counted_or_refused():
    histories = [[("b", "view"), ("x", "view")]]
    assert recommender().recommend(histories).num_unknown == 1
    with pytest.raises(ValueError, match="names the item 'x'"):
        recommender().recommend(histories, unknown_items="error")


def test_the_function_sees_histories_as_of_the_query():
    seen = []

    def score(histories, behavior):
        seen.append(histories)
        return np.zeros((len(histories), 2))

    asked = ScoringRecommender(score, ["a", "b"], "view")
    lists = asked.recommend([[("a", "view", 10), ("b", "view", 20)], [("a", "view", 30)]], at=[20, 40])
    assert seen[0].query_times.tolist() == [20, 40]
    assert [history.items.tolist() for history in seen[0]] == [[0], [0]]
    assert lists.num_later == 1
    with pytest.raises(ValueError, match="'soon' is no moment"):
        asked.recommend([[]], at="soon")


def test_histories_of_another_catalog_are_mapped_by_id():
    other = as_histories([[("e", "buy"), ("b", "buy")]], item_ids=["e", "b"], ladder="buy")
    lists = recommender().recommend(other, k=5, exclude_seen=True)
    assert lists[0].item_ids == ["c", "d", "a"]


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="`k`, the number of items per user, must be at least 1, got 0"):
        recommender().recommend(HISTORIES, k=0)
    with pytest.raises(ValueError, match="Unknown behavior 'like'"):
        recommender().recommend(HISTORIES, behavior="like")
    with pytest.raises(ValueError, match=r"A mask given as `allow` must have the shape \(5,\) or \(2, 5\).*got \(3,\)"):
        recommender().recommend(HISTORIES, allow=np.ones(3, dtype=bool))
    with pytest.raises(ValueError, match="`deny` must be a collection of item ids, got the string 'abc'"):
        recommender().recommend(HISTORIES, deny="abc")
    with pytest.raises(ValueError, match=r"shape \(2, 5\), got \(5,\)"):
        ScoringRecommender(lambda histories, behavior: np.zeros(5), ITEMS, LADDER).recommend(HISTORIES)
    with pytest.raises(ValueError, match="NaN for user 1 and catalog row 2"):
        ScoringRecommender(nan_for_one, ITEMS, LADDER).recommend(HISTORIES)


def nan_for_one(histories: Histories, behavior: str) -> np.ndarray:
    scores = np.zeros((len(histories), 5))
    scores[1, 2] = np.nan
    return scores
