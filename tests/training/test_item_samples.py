"""Samples of scoring models by hand, and their batches."""

import numpy as np
import pytest
import torch

from genrec.data.histories import as_histories
from genrec.training.item_samples import InteractionDataset, ItemCollator, item_counts, item_samples

DAY = 86_400
EVENTS = [
    # two sessions, then one with two interactions
    [("a", "view", 0), ("b", "view", 60), ("c", "buy", DAY), ("a", "view", 2 * DAY), ("d", "buy", 2 * DAY + 60)],
    [("b", "view", 0), ("b", "buy", 60)],  # a single session: no earlier one
    [("d", "view", 0), ("a", "buy", DAY)],
]


@pytest.fixture
def train():
    return as_histories(EVENTS, ["a", "b", "c", "d"], "view,buy")


def items_of(dataset):
    return [dataset[row]["items"].tolist() for row in range(len(dataset))]


def test_at_the_interaction_level_each_sample_is_the_history_of_earlier_sessions_and_one_target(train):
    dataset = InteractionDataset(train, max_history_items=50)
    assert items_of(dataset) == [[0, 1, 2], [0, 1, 2, 0], [0, 1, 2, 3], [3, 0]]
    assert dataset.lengths.tolist() == [3, 4, 4, 2]
    assert {sample["num_targets"] for sample in dataset} == {1}
    assert dataset[2]["behaviors"].tolist() == [0, 0, 1, 1]
    assert dataset[2]["sessions"].tolist() == [0, 0, 1, 2]
    assert dataset[2]["times"].tolist() == [0, 60, DAY, 2 * DAY + 60]
    assert dataset[-1]["items"].tolist() == [3, 0]
    with pytest.raises(IndexError):
        dataset[4]


def test_at_the_interaction_level_the_latest_items_stay_and_targets_may_be_chosen(train):
    dataset = InteractionDataset(train, max_history_items=2, target_behaviors=[1])
    assert items_of(dataset) == [[0, 1, 2], [1, 2, 3], [3, 0]]
    assert dataset.lengths.tolist() == [3, 3, 2]


def test_the_targets_of_one_session_may_be_one_sample(train):
    dataset = InteractionDataset(train, max_history_items=50, joins_sessions=True)
    assert items_of(dataset) == [[0, 1, 2], [0, 1, 2, 0, 3], [3, 0]]
    assert [sample["num_targets"] for sample in dataset] == [1, 2, 1]
    assert dataset.lengths.tolist() == [3, 4, 2], "what is read for each target"
    assert (len(dataset), dataset[-1]["items"].tolist()) == (3, [3, 0])
    buys = InteractionDataset(train, max_history_items=50, target_behaviors=[1], joins_sessions=True)
    assert items_of(buys) == [[0, 1, 2], [0, 1, 2, 3], [3, 0]]


def test_no_target_sees_its_own_session(train):
    """Over random logs: every input event is of an earlier session of the same user."""
    draw = np.random.default_rng(0)
    log = [[("abcd"[draw.integers(4)], "view", int(t)) for t in np.sort(draw.integers(9 * DAY, size=20))] for _ in "12"]
    for sample in InteractionDataset(as_histories(log, list("abcd"), "view"), 5):
        assert (sample["sessions"][:-1] < sample["sessions"][-1]).all()
        assert 1 <= len(sample["items"]) - 1 <= 5


def test_copies_at_the_interaction_level_lose_less_than_all_and_find_their_sessions_anew():
    """K = 1: half of the views go, floor(3 / 2) = 1, and no buy; sessions start where the rest of them starts."""
    events = [("a", "view", 0), ("b", "view", DAY), ("c", "buy", DAY + 60), ("d", "view", 2 * DAY)]
    train = as_histories([events], ["a", "b", "c", "d"], "view,buy")
    originals = [[0, 1], [0, 2], [0, 1, 2, 3]]
    copies = {0: [[1, 2, 3]], 1: [[0, 2], [0, 2, 3]], 3: [[0, 1], [0, 2]]}  # without a, without b, without d
    # Without a, the session of b and c is the first, so that only d has an earlier one.
    assert originals == items_of(item_samples(train, "interaction", 50))
    met = set()
    for seed in range(20):
        samples = items_of(item_samples(train, "interaction", 50, augmentation_copies=1, seed=seed))
        assert samples[:3] == originals
        lost = next(item for item, copy in copies.items() if samples[3:] == copy)
        assert samples == items_of(item_samples(train, "interaction", 50, augmentation_copies=1, seed=seed))
        met.add(lost)
    assert met == set(copies)


def test_copies_at_the_user_level_reach_the_whole_ratio_and_further_back(train):
    samples = item_samples(train, "user", max_history_items=1, augmentation_copies=1)
    # Without views, the first user keeps c and d; the others keep one purchase each and give no copy.
    assert items_of(samples) == [[0, 3], [1, 1], [3, 0], [2, 3]]


def test_target_behaviors_are_targets_of_every_copy(train):
    samples = item_samples(train, "interaction", 50, target_behaviors=[1], augmentation_copies=3, seed=2)
    assert {sample["behaviors"][-1] for sample in samples} == {1}
    alone = item_samples(train, "interaction", 50, target_behaviors=[1])
    assert len(samples) > len(alone)
    assert items_of(samples)[: len(alone)] == items_of(alone)


def test_a_negative_number_of_copies_is_refused(train):
    with pytest.raises(ValueError, match="`augmentation_copies` must be at least 0, got -1"):
        item_samples(train, "interaction", 50, augmentation_copies=-1)


def test_at_the_user_level_a_sample_is_a_users_last_items_and_one_more(train):
    dataset = item_samples(train, "user", max_history_items=2)
    assert items_of(dataset) == [[2, 0, 3], [1, 1], [3, 0]]
    assert "num_targets" not in dataset[0]


def test_at_the_window_level_no_interaction_is_left_out(train):
    dataset = item_samples(train, "window", max_history_items=2)
    assert items_of(dataset) == [[0, 1], [2, 0, 3], [1, 1], [3, 0]]


def test_users_with_a_single_interaction_are_no_samples():
    lonely = as_histories([[("a", "view")], [("a", "view"), ("b", "view")]], ["a", "b"], "view")
    assert items_of(item_samples(lonely, "user", 5)) == [[0, 1]]
    with pytest.raises(ValueError, match="No user has two training interactions"):
        item_samples(lonely.select([0]), "user", 5)


def test_wrong_levels_and_ignored_settings_are_refused(train):
    with pytest.raises(ValueError, match="`level` must be one of user, window, interaction, got 'session'"):
        item_samples(train, "session", 5)
    with pytest.raises(ValueError, match="`target_behaviors` would be ignored"):
        item_samples(train, "user", 5, target_behaviors=[1])
    with pytest.raises(ValueError, match="`joins_sessions` would be ignored"):
        item_samples(train, "user", 5, joins_sessions=True)
    with pytest.raises(ValueError, match="No interaction has an earlier session"):
        item_samples(train.select([1]), "interaction", 5)


def test_a_batch_has_its_pads_at_the_right_and_labels_where_loss_is_borne(train):
    dataset = InteractionDataset(train, max_history_items=2)
    batch = ItemCollator()([dataset[0], dataset[3]])
    assert batch["items"].tolist() == [[0, 1, 2], [3, 0, -1]]
    assert batch["labels"].tolist() == [[-100, -100, 2], [-100, 0, -100]]
    assert batch["behaviors"].tolist() == [[0, 0, 1], [0, 1, 0]]
    assert batch["sessions"].tolist() == [[0, 0, 1], [0, 1, 0]]
    assert batch["times"].tolist() == [[0, 60, DAY], [0, DAY, 0]]
    assert all(values.dtype == torch.int64 for values in batch.values())


def test_at_the_user_level_every_item_bears_loss(train):
    samples = item_samples(train, "user", 5)
    batch = ItemCollator()([samples[0], samples[1]])
    assert batch["labels"].tolist() == [[0, 1, 2, 0, 3], [1, 1, -100, -100, -100]]


def test_a_process_without_samples_gets_a_row_without_labels():
    batch = ItemCollator()([])
    assert batch["items"].tolist() == [[-1]]
    assert batch["labels"].tolist() == [[-100]]


def test_item_counts_are_per_behavior(train):
    assert item_counts(train).tolist() == [[2, 2, 0, 1], [1, 1, 1, 1]]
