import math

import numpy as np
import pytest

from genrec.evaluation.metrics import (
    RANKING_METRICS,
    MetricName,
    coverage,
    default_metrics,
    hit,
    mrr,
    ndcg,
    novelty,
    recall,
    seen_share,
)

HITS = np.array(
    [
        [0, 1, 1, 0],  # ranks 2 and 3
        [1, 0, 0, 0],  # rank 1
        [0, 0, 0, 1],  # rank 4
        [0, 0, 0, 0],
    ],
    dtype=bool,
)
NUM_TARGETS = np.array([2, 5, 1, 3])


def test_hit_is_one_if_any_target_stands_in_the_first_k():
    assert hit(HITS, NUM_TARGETS, k=3).tolist() == [1, 1, 0, 0]
    assert hit(HITS, NUM_TARGETS, k=4).tolist() == [1, 1, 1, 0]
    assert hit(HITS, NUM_TARGETS, k=1).tolist() == [0, 1, 0, 0]


def test_recall_is_the_share_of_targets_found():
    assert recall(HITS, NUM_TARGETS, k=3).tolist() == [2 / 2, 1 / 5, 0, 0]
    assert recall(HITS, NUM_TARGETS, k=2).tolist() == [1 / 2, 1 / 5, 0, 0]


def test_recall_never_exceeds_one():
    assert recall(np.ones((1, 3), dtype=bool), np.array([2]), k=3).tolist() == [1.0]


def test_ndcg_divides_the_discounted_hits_by_those_of_the_best_list():
    expected = [
        (1 / math.log2(3) + 1 / math.log2(4)) / (1 + 1 / math.log2(3)),  # ranks 2 and 3, two targets
        1 / (1 + 1 / math.log2(3) + 1 / math.log2(4)),  # rank 1, the best list is cut at k=3
        0.0,
        0.0,
    ]
    assert ndcg(HITS, NUM_TARGETS, k=3).tolist() == pytest.approx(expected)
    assert ndcg(HITS, NUM_TARGETS, k=4)[2] == pytest.approx(1 / math.log2(5))


def test_ndcg_counts_no_more_hits_than_there_are_targets():
    expected = (1 / math.log2(2) + 1 / math.log2(4)) / (1 / math.log2(2) + 1 / math.log2(3))
    assert ndcg(np.array([[True, False, True, True]]), np.array([2]), k=4).tolist() == pytest.approx([expected])


def test_mrr_is_one_over_the_rank_of_the_first_hit():
    assert mrr(HITS, NUM_TARGETS, k=3).tolist() == [1 / 2, 1, 0, 0]
    assert mrr(HITS, NUM_TARGETS, k=4).tolist() == [1 / 2, 1, 1 / 4, 0]


@pytest.mark.parametrize("metric", RANKING_METRICS.values(), ids=RANKING_METRICS)
@pytest.mark.parametrize("num_targets", [1, 2, 5, 9])
def test_every_ranking_metric_is_one_for_the_best_list_and_zero_for_no_hit(metric, num_targets):
    k = 5
    best = np.arange(k)[None, :] < num_targets
    reachable = min(num_targets, k) / num_targets if metric is recall else 1.0
    assert metric(best, np.array([num_targets]), k).tolist() == pytest.approx([reachable])
    assert metric(np.zeros((1, k), dtype=bool), np.array([num_targets]), k).tolist() == [0.0]


def test_coverage_counts_each_recommended_item_once():
    assert coverage(np.array([[3, 1], [1, -1], [-1, -1]]), num_items=8) == 2 / 8


def test_novelty_is_the_mean_of_minus_log2_of_smoothed_popularity():
    counts = np.array([5, 0, 1])  # smoothed: 6/9, 1/9, 2/9
    lists = np.array([[0, 1], [2, -1], [-1, -1]])
    expected = [(math.log2(9 / 6) + math.log2(9)) / 2, math.log2(9 / 2)]
    values = novelty(lists, counts)
    assert values[:2].tolist() == pytest.approx(expected)
    assert np.isnan(values[2])


def test_seen_share_looks_at_real_places_only():
    values = seen_share(np.array([[4, 2, -1], [-1, -1, -1]]), np.array([[True, False, True], [True, True, True]]))
    assert values[0] == 1 / 2
    assert np.isnan(values[1])


def test_default_metrics_stop_at_k():
    assert default_metrics(5)[:6] == ("hit@1", "hit@5", "recall@1", "recall@5", "ndcg@1", "ndcg@5")
    assert {"ndcg@10", "ndcg@20", "mrr@20"} <= set(default_metrics(20))


def test_names_round_trip():
    assert [str(MetricName.parse(name)) for name in default_metrics(10)] == list(default_metrics(10))
    assert MetricName.parse("ndcg@3").is_ranking
    assert not MetricName.parse("coverage@3").is_ranking


@pytest.mark.parametrize("name", ["ndcg", "ndcg@", "ndcg@0", "ndcg@-1", "NDCG@10", "@10"])
def test_a_name_without_a_cutoff_is_refused(name):
    with pytest.raises(ValueError, match="written `name@k` with k at least 1"):
        MetricName.parse(name)


def test_an_unknown_metric_names_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'recall@10'"):
        MetricName.parse("recal@10")
    with pytest.raises(ValueError, match=r"Unknown metric 'xyz@10'\. Known are: hit, recall"):
        MetricName.parse("xyz@10")
