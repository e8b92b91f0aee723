"""The share of targets among the last items, against counting user by user."""

import numpy as np
import pytest

from genrec.data.histories import Queries, as_histories
from genrec.evaluation import evaluate
from genrec.evaluation.recent_targets import recent_target_shares
from genrec.recommender import RecencyRecommender

ITEMS = list("abcdefgh")


def random_events(draw, most):
    return [[(draw.choice(ITEMS), draw.choice(["view", "buy"])) for _ in range(draw.integers(most))] for _ in range(40)]


@pytest.fixture(scope="module")
def queries():
    draw = np.random.default_rng(0)
    past, session = random_events(draw, 12), random_events(draw, 5)
    return Queries(as_histories(past, ITEMS, "view,buy"), as_histories(session, ITEMS, "view,buy"))


@pytest.mark.parametrize("behavior", ["view", "buy"])
def test_each_distinct_target_counts_once_among_the_last_distinct_items(queries, behavior):
    index, found, total = ["view", "buy"].index(behavior), np.zeros(9), 0
    for past, session in zip(queries.histories, queries.targets, strict=True):
        newest_first = list(dict.fromkeys(past.items[::-1].tolist()))
        for target in set(session.items[session.behaviors == index].tolist()):
            total += 1
            for depth in range(1, 10):
                found[depth - 1] += target in newest_first[:depth]
    np.testing.assert_allclose(recent_target_shares(queries, behavior, max_depth=9), found / total)
    assert 0 < found[0] < found[-1] < total


def test_the_share_at_n_is_what_repeating_the_last_n_items_finds():
    """With one target per user, and histories of at least n items, it is the recency rule's hit rate at n."""
    draw = np.random.default_rng(1)
    past = as_histories([[(item, "view") for item in draw.permutation(ITEMS)[:5]] for _ in "x" * 30], ITEMS, "view")
    one = Queries(past, as_histories([[(draw.choice(ITEMS), "view")] for _ in "x" * 30], ITEMS, "view"))
    report = evaluate(RecencyRecommender().fit(past), one, k=5, metrics=["hit@1", "hit@3", "hit@5"])
    shares = recent_target_shares(one, "view", max_depth=5)
    assert [shares[0], shares[2], shares[4]] == [report.value(f"hit@{n}") for n in (1, 3, 5)]


def test_without_any_history_nothing_was_met():
    nobody = Queries(as_histories([[]], ["a"], "view"), as_histories([[("a", "view")]], ["a"], "view"))
    assert recent_target_shares(nobody, "view", max_depth=2).tolist() == [0, 0]


def test_bad_input_is_refused(queries):
    with pytest.raises(ValueError, match="`max_depth` must be at least 1, got 0"):
        recent_target_shares(queries, "buy", max_depth=0)
    views = Queries(queries.histories, as_histories([[("a", "view")]] * 40, ITEMS, "view,buy"))
    with pytest.raises(ValueError, match="None of the 40 queries has a target of 'buy'"):
        recent_target_shares(views, "buy")
