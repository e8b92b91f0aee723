"""Ranking samples: what is a conversion, what is asked, and that nothing of the asked session or later is given."""

import numpy as np
import pytest
import torch

from genrec.data.histories import Histories, as_histories
from genrec.data.splits import split_last_session
from genrec.training.ranking_samples import OUTCOMES, RankingCollator, RankingDataset, exposures_and_conversions

HOUR = 3600
ITEMS = list("abcde")
LADDER = "view,like=cart,buy"
ANNA = [
    ("a", "view", 0),
    ("b", "view", 10),
    ("a", "buy", 20),
    ("a", "view", 5 * HOUR),
    ("c", "cart", 9 * HOUR),
    ("c", "view", 9 * HOUR + 5),
    ("d", "view", 14 * HOUR),
]
BERT = [("e", "buy", 0), ("e", "view", 9 * HOUR)]


def log(**options) -> Histories:
    histories = as_histories([ANNA, BERT], ITEMS, LADDER)
    return exposures_and_conversions(histories, ["buy"], **options)


def test_an_item_stands_once_in_a_session_with_its_best_outcome():
    reduced = log()
    assert reduced.ladder is OUTCOMES
    assert [list(zip(row.items.tolist(), row.behaviors.tolist(), strict=True)) for row in reduced] == [
        [(0, 1), (1, 0), (0, 0), (2, 0), (3, 0)],  # a is bought in the first session only
        [(4, 1), (4, 0)],
    ]
    assert reduced[0].times.tolist() == [0, 10, 5 * HOUR, 9 * HOUR, 14 * HOUR]


def test_or_every_event_stays():
    reduced = log(one_per_session=False)
    assert reduced.items.tolist() == [0, 1, 0, 0, 2, 2, 3, 4, 4]
    assert reduced.behaviors.tolist() == [0, 0, 1, 0, 0, 0, 0, 1, 0]


def test_several_behaviors_may_be_conversions():
    reduced = exposures_and_conversions(as_histories([ANNA], ITEMS, LADDER), ["buy", "cart", "like"])
    assert reduced.behaviors.tolist() == [1, 0, 0, 1, 0]


@pytest.mark.parametrize("conversions", [[], ["cart"], ["view", "like", "cart", "buy"], ["like", "buy"]])
def test_conversions_stand_above_exposures(conversions):
    with pytest.raises(ValueError, match="`conversions` must be the behaviors of the highest levels"):
        exposures_and_conversions(as_histories([ANNA], ITEMS, LADDER), conversions)
    with pytest.raises(ValueError, match="Unknown behavior 'sell'"):
        exposures_and_conversions(as_histories([ANNA], ITEMS, LADDER), ["sell"])


def test_a_session_is_asked_about_after_all_earlier_sessions():
    dataset = RankingDataset.of_sessions(log(), max_history_items=2)
    asked = [tuple(sample[name].tolist() for name in ("items", "candidates", "labels")) for sample in dataset]
    assert asked == [
        ([], [0, 1], [1, 0]),
        ([0, 1], [0], [0]),
        ([1, 0], [2], [0]),
        ([0, 2], [3], [0]),
        ([], [4], [1]),
        ([4], [4], [0]),
    ]
    assert dataset.num_labels == 7


def test_a_user_is_asked_about_their_last_session():
    dataset = RankingDataset.of_users(log(), max_history_items=50)
    assert [sample["candidates"].tolist() for sample in dataset] == [[3], [4]]
    assert [sample["items"].tolist() for sample in dataset] == [[0, 1, 0, 2], [4]]


def test_queries_of_a_split_are_asked_with_their_own_users():
    split = split_last_session(log())
    test = RankingDataset.of_queries(split.test, max_history_items=3)
    assert len(test) == 1
    assert test.users.tolist() == [0]
    assert (test[0]["items"].tolist(), test[0]["candidates"].tolist()) == ([1, 0, 2], [3])
    validation = RankingDataset.of_queries(split.validation, max_history_items=3)
    assert (validation[0]["items"].tolist(), validation[0]["candidates"].tolist()) == ([0, 1, 0], [2])


def test_histories_are_strictly_before_what_is_asked():
    generator = np.random.default_rng(0)
    rows = []
    for _ in range(20):
        times = np.sort(generator.integers(100 * HOUR, size=30))
        rows.append([(ITEMS[generator.integers(5)], "view", int(time)) for time in times])
    histories = exposures_and_conversions(as_histories(rows, ITEMS, LADDER), ["buy"])
    dataset = RankingDataset.of_sessions(histories, max_history_items=50)
    for row, sample in enumerate(dataset):
        events = histories[dataset.asked.rows[dataset._firsts[row]]]
        begin = dataset._firsts[row] - histories.offsets[dataset.asked.rows[dataset._firsts[row]]]
        assert sample["items"].tolist() == events.items[:begin].tolist()
        assert (events.times[:begin] < events.times[begin]).all()


def test_a_log_must_be_reduced_and_ask_something():
    whole = as_histories([ANNA], ITEMS, LADDER)
    with pytest.raises(ValueError, match="Ranking needs a log of exposures and conversions"):
        RankingDataset.of_sessions(whole, 50)
    with pytest.raises(ValueError, match="No session is asked about"):
        RankingDataset.of_sessions(log().select(np.zeros(2, dtype=bool)), 50)
    with pytest.raises(IndexError, match="Row 6 of a dataset with 6 samples"):
        RankingDataset.of_sessions(log(), 50)[6]


def test_batches_of_catalog_rows():
    batch = RankingCollator()(list(RankingDataset.of_users(log(), 50)))
    assert {name: values.tolist() for name, values in batch.items()} == {
        "items": [[0, 1, 0, 2], [4, -1, -1, -1]],
        "behaviors": [[1, 0, 0, 0], [1, 0, 0, 0]],
        "candidates": [[3], [4]],
        "labels": [[0], [0]],
    }


def test_batches_of_codes_number_sessions_from_0():
    codes = torch.tensor([[item, 9 - item] for item in range(5)])
    dataset = RankingDataset.of_sessions(log(), max_history_items=2)
    batch = RankingCollator(codes)([dataset[0], dataset[3]])
    assert {name: values.tolist() for name, values in batch.items()} == {
        "codes": [[[-1, -1], [-1, -1]], [[0, 9], [2, 7]]],
        "behaviors": [[0, 0], [0, 0]],
        "sessions": [[0, 0], [0, 1]],
        "candidate_codes": [[[0, 9], [1, 8]], [[3, 6], [-1, -1]]],
        "labels": [[1, 0], [0, -100]],
    }
