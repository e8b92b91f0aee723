"""`EncoderDecoderCollator`: earlier items to the encoder, the target with its end token to the labels."""

import numpy as np
import pytest
import torch

from genrec.data.histories import as_histories
from genrec.training.encoder_decoder_collator import EncoderDecoderCollator
from genrec.training.item_samples import InteractionDataset
from genrec.training.samples import HistoryDataset

ITEM_TOKENS = torch.tensor([[4, 6], [5, 7], [4, 7]])


def sample(items, behaviors, **fields):
    return {"items": np.array(items), "behaviors": np.array(behaviors), "num_targets": 1, **fields}


def test_a_batch_by_hand():
    batch = EncoderDecoderCollator(ITEM_TOKENS, 2)([sample([0, 1, 2], [0, 1, 1]), sample([2, 0], [1, 0])])
    assert batch["input_ids"].tolist() == [[2, 4, 6, 3, 5, 7, 1], [3, 4, 7, 1, 0, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1] * 7, [1, 1, 1, 1, 0, 0, 0]]
    assert batch["labels"].tolist() == [[3, 4, 7, 1], [2, 4, 6, 1]]


def test_without_behavior_tokens_there_is_none_in_input_or_labels():
    collate = EncoderDecoderCollator(ITEM_TOKENS, 2, writes_behaviors=False)
    batch = collate([sample([0, 1, 2], [0, 1, 1])])
    assert batch["input_ids"].tolist() == [[4, 6, 5, 7, 1]]
    assert batch["labels"].tolist() == [[4, 7, 1]]


def test_only_the_last_items_are_read_and_a_target_may_stand_alone():
    collate = EncoderDecoderCollator(ITEM_TOKENS, 2, max_history_items=1)
    batch = collate([sample([0, 1, 2], [0, 1, 1]), sample([1], [0])])
    assert batch["input_ids"].tolist() == [[3, 5, 7, 1], [1, 0, 0, 0]]
    assert batch["labels"].tolist() == [[3, 4, 7, 1], [2, 5, 7, 1]]


def test_the_targets_of_a_sample_are_written_after_one_history():
    collate = EncoderDecoderCollator(ITEM_TOKENS, 2, max_history_items=1)
    batch = collate([sample([0, 1, 2, 0], [0, 1, 1, 0], num_targets=2), sample([1, 2], [0, 0])])
    assert batch["input_ids"].tolist() == [[3, 5, 7, 1], [2, 5, 7, 1]]
    assert batch["labels"].tolist() == [[3, 4, 7, 1], [2, 4, 6, 1], [2, 4, 7, 1]]
    assert batch["encoder_rows"].tolist() == [0, 0, 1]


def test_joined_sessions_ask_for_the_same_targets_after_the_same_histories():
    log = [("a", "view", 0), ("b", "view", 90_000), ("c", "buy", 90_060), ("a", "buy", 180_000)]
    histories = as_histories([log, log[:2]], ["a", "b", "c"], "view,buy")
    collate = EncoderDecoderCollator(ITEM_TOKENS, 2)
    one_by_one = collate(list(InteractionDataset(histories, 50)))
    joined = collate(list(InteractionDataset(histories, 50, joins_sessions=True)))
    assert len(one_by_one["input_ids"]) == 4
    assert len(joined["input_ids"]) == 3
    assert joined["labels"].tolist() == one_by_one["labels"].tolist()
    assert joined["input_ids"][joined["encoder_rows"]].tolist() == one_by_one["input_ids"].tolist()


def test_no_samples_give_one_row_without_labels():
    batch = EncoderDecoderCollator(ITEM_TOKENS, 2)([])
    assert batch["input_ids"].tolist() == [[1]]
    assert (batch["labels"] == -100).all()


def test_training_samples_hold_nothing_of_the_targets_session():
    log = [("a", "view", 0), ("b", "view", 90_000), ("c", "buy", 90_060)]
    dataset = InteractionDataset(as_histories([log], ["a", "b", "c"], "view,buy"), max_history_items=50)
    batch = EncoderDecoderCollator(ITEM_TOKENS, 2)(list(dataset))
    assert batch["input_ids"].tolist() == [[2, 4, 6, 1], [2, 4, 6, 1]]
    assert batch["labels"].tolist() == [[2, 5, 7, 1], [3, 4, 7, 1]]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (sample([3, 0], [0, 0]), "names item 3, but the item tokenizer knows items 0 to 2"),
        (sample([1, 0], [2, 0]), "names behavior 2"),
        (sample([], []), "got `num_targets` 1 in a sample of 0 interactions"),
        (sample([1, 0], [0, 0], num_targets=3), "got `num_targets` 3 in a sample of 2 interactions"),
        (sample([1, 0], [0, 0], num_targets=0), "at least one and at most all; got `num_targets` 0"),
    ],
)
def test_a_wrong_sample_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        EncoderDecoderCollator(ITEM_TOKENS, 2)([wrong])


def test_user_level_samples_and_an_empty_window_are_refused():
    users = HistoryDataset(as_histories([[("a", "view"), ("b", "buy")]], ["a", "b", "c"], "view,buy"))
    with pytest.raises(ValueError, match="Use `InteractionDataset`"):
        EncoderDecoderCollator(ITEM_TOKENS, 2)([users[0]])
    with pytest.raises(ValueError, match="`max_history_items` must be at least 1, got 0"):
        EncoderDecoderCollator(ITEM_TOKENS, 2, max_history_items=0)
