"""Validation by ranking: the same number as `evaluate` gives, and fair candidates."""

import tracemalloc

import numpy as np
import pytest

from genrec.data.histories import Queries, as_histories
from genrec.evaluation import evaluate
from genrec.evaluation.metrics import ndcg
from genrec.recommender import ScoringRecommender
from genrec.training import item_ranking
from genrec.training.item_ranking import draw_candidates, ndcg_of, ranking_tasks

NUM_ITEMS = 30


@pytest.fixture(params=["all records at once", "three at a time"])
def _chunks(request, monkeypatch):
    if request.param == "three at a time":
        monkeypatch.setattr(item_ranking, "SCORES_PER_CHUNK", 3 * NUM_ITEMS + 1)


def drawn_sets(candidates):
    return [set(row[row >= 0].tolist()) for row in candidates]


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


@pytest.mark.usefixtures("_chunks")
def test_candidates_are_the_targets_and_random_items_that_the_user_never_met(queries):
    task = ranking_tasks(queries, ["view"])[0]
    candidates = draw_candidates(task, 8, seed=0)
    assert candidates.shape == (len(task), 8), "ids of the drawn, not a mask over the catalog"
    for record, (row, drawn) in enumerate(zip(task.rows, drawn_sets(candidates), strict=True)):
        history = set(queries.histories[row].items.tolist())
        right = set(task.targets.items[task.targets.pairs // NUM_ITEMS == record].tolist())
        assert len(drawn) == max(8, len(right))
        assert right <= drawn
        assert not (drawn - right) & history


@pytest.mark.usefixtures("_chunks")
def test_targets_stay_where_there_are_more_than_candidates(queries):
    task = ranking_tasks(queries, ["view"])[0]
    assert task.targets.sizes.max() > 1
    for record, drawn in enumerate(drawn_sets(draw_candidates(task, 1, seed=0))):
        assert drawn == set(task.targets.items[task.targets.pairs // NUM_ITEMS == record].tolist())


def test_candidates_are_drawn_evenly(queries):
    task = ranking_tasks(queries, ["view"])[0]
    rows = np.concatenate([draw_candidates(task, 8, seed=seed)[0] for seed in range(300)])
    drawn = np.bincount(rows[rows >= 0], minlength=NUM_ITEMS)
    free = np.ones(NUM_ITEMS, dtype=bool)
    free[queries.histories[task.rows[0]].items] = False
    free[task.targets.items[task.targets.pairs // NUM_ITEMS == 0]] = False
    expected = 300 * (8 - task.targets.sizes[0]) / free.sum()
    assert np.abs(drawn[free] - expected).max() < 5 * np.sqrt(expected)


def test_a_small_catalog_gives_fewer_candidates(queries):
    task = ranking_tasks(queries, ["view"])[0]
    for record, drawn in enumerate(drawn_sets(draw_candidates(task, 1000, seed=0))):
        right = set(task.targets.items[task.targets.pairs // NUM_ITEMS == record].tolist())
        assert drawn == right | (set(range(NUM_ITEMS)) - set(queries.histories[task.rows[record]].items.tolist()))


@pytest.mark.usefixtures("_chunks")
def test_ranking_among_candidates_is_ranking_with_all_others_forbidden(queries, recommender):
    task = ranking_tasks(queries, ["buy"])[0]
    candidates = draw_candidates(task, 8, seed=0)
    mask = np.array([[item in drawn for item in range(NUM_ITEMS)] for drawn in drawn_sets(candidates)])
    lists = recommender.recommend(queries.histories.select(task.rows), k=10, behavior="buy", allow=mask)
    expected = ndcg(task.targets.contains(lists.items), task.targets.sizes, 10)
    assert np.array_equal(ndcg_of(recommender, queries, task, candidates), expected)


def test_drawing_keeps_the_drawn_alone_in_memory():
    """400 records over 20,000 items: a byte for each of their pairs would be 8 MB."""
    items = np.arange(20_000)
    asked = as_histories([[(record, "view")] for record in range(400)], items, "view")
    task = ranking_tasks(Queries(asked, as_histories([[(7, "view")]] * 400, items, "view")), ["view"])[0]
    tracemalloc.start()
    candidates = draw_candidates(task, 100, seed=0)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 2 * candidates.nbytes == 2 * 400 * 100 * 4


def test_fewer_candidates_make_the_task_easier(queries, recommender):
    task = ranking_tasks(queries, ["view"])[0]
    among_few = ndcg_of(recommender, queries, task, draw_candidates(task, 8, seed=0))
    assert among_few.mean() > ndcg_of(recommender, queries, task).mean()


def test_queries_without_a_target_are_refused(queries):
    with pytest.raises(ValueError, match=r"None of the 40 validation queries has a target of \['buy'\]"):
        ranking_tasks(Queries(queries.histories, queries.targets.keep(queries.targets.behaviors == 0)), ["buy"])
