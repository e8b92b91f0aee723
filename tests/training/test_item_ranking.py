"""Validation by ranking: the same number as `evaluate` gives, and fair candidates."""

import numpy as np
import pytest

from genrec.data.histories import Queries, as_histories
from genrec.evaluation import evaluate
from genrec.recommender import ScoringRecommender
from genrec.training.item_ranking import draw_candidates, ndcg_of, ranking_tasks

NUM_ITEMS = 30


@pytest.fixture
def queries():
    draw = np.random.default_rng(0)

    def events(lengths):
        return [[(int(draw.integers(NUM_ITEMS)), draw.choice(["view", "buy"])) for _ in range(n)] for n in lengths]

    past = as_histories(events([5] * 40), np.arange(NUM_ITEMS), "view,buy")
    future = as_histories(events(draw.integers(1, 4, 40)), np.arange(NUM_ITEMS), "view,buy")
    return Queries(past, future)


@pytest.fixture
def recommender():
    scores = np.random.default_rng(1).random((2, NUM_ITEMS))
    return ScoringRecommender(
        lambda histories, behavior: np.tile(scores[histories.ladder.index(behavior)], (len(histories), 1)),
        np.arange(NUM_ITEMS),
        "view,buy",
    )


def test_over_the_whole_catalog_it_is_what_evaluation_reports(queries, recommender):
    report = evaluate(recommender, queries, metrics=["ndcg@10"], num_bootstrap=1)
    tasks = ranking_tasks(queries, ["view", "buy"])
    per_behavior = [ndcg_of(recommender, queries, task) for task in tasks]
    for task, values in zip(tasks, per_behavior):
        assert values.mean() == pytest.approx(report.value("ndcg@10", behavior=task.behavior))
    assert np.concatenate(per_behavior).mean() == pytest.approx(report.value("ndcg@10"))


def test_candidates_are_the_targets_and_random_items_that_the_user_never_met(queries):
    task = ranking_tasks(queries, ["view"])[0]
    candidates = draw_candidates(task, 8, seed=0)
    for record, row in enumerate(task.rows):
        targets = set(np.flatnonzero(candidates[record]))
        history = set(queries.histories[row].items.tolist())
        right = set(task.targets.items[task.targets.pairs // NUM_ITEMS == record].tolist())
        assert len(targets) == max(8, len(right))
        assert right <= targets
        assert not (targets - right) & history


def test_candidates_are_drawn_evenly(queries):
    task = ranking_tasks(queries, ["view"])[0]
    drawn = sum(draw_candidates(task, 8, seed=seed).astype(int) for seed in range(300))[0]
    free = np.ones(NUM_ITEMS, dtype=bool)
    free[queries.histories[task.rows[0]].items] = False
    free[task.targets.items[task.targets.pairs // NUM_ITEMS == 0]] = False
    expected = 300 * (8 - task.targets.sizes[0]) / free.sum()
    assert np.abs(drawn[free] - expected).max() < 5 * np.sqrt(expected)


def test_a_small_catalog_gives_fewer_candidates(queries):
    task = ranking_tasks(queries, ["view"])[0]
    candidates = draw_candidates(task, 1000, seed=0)
    assert not candidates.all(axis=1).any()
    assert (candidates.sum(axis=1) >= task.targets.sizes).all()


def test_fewer_candidates_make_the_task_easier(queries, recommender):
    task = ranking_tasks(queries, ["view"])[0]
    among_few = ndcg_of(recommender, queries, task, draw_candidates(task, 8, seed=0))
    assert among_few.mean() > ndcg_of(recommender, queries, task).mean()


def test_queries_without_a_target_are_refused(queries):
    with pytest.raises(ValueError, match=r"None of the 40 validation queries has a target of \['buy'\]"):
        ranking_tasks(Queries(queries.histories, queries.targets.keep(queries.targets.behaviors == 0)), ["buy"])
