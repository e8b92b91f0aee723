import numpy as np
import pytest
import torch

from genrec.item_tokenizers.vocabulary import Vocabulary
from genrec.training.collators import HistoryCollator, MicroBatchCollator

# Behaviors are tokens 2 and 3, first codes 4 to 6, second codes 7 to 9.
VOCABULARY = Vocabulary(num_behaviors=2, codebook_sizes=(3, 3))
ITEM_TOKENS = torch.tensor([[4, 7], [5, 8], [6, 9]])


def sample(items, behaviors, sessions, **more):
    return {"items": items, "behaviors": behaviors, "sessions": sessions, "times": [0] * len(items), **more}


def naive_row(example: dict, width: int, window: int) -> dict[str, list[int]]:
    """The layout said with loops."""
    start = max(0, len(example["items"]) - window)
    row: dict[str, list[int]] = {"input_ids": [], "attention_mask": [], "labels": [], "session_ids": []}
    session = 0
    for position in range(start, len(example["items"])):
        if position == start or example["sessions"][position] != example["sessions"][position - 1]:
            session += 1
        codes = ITEM_TOKENS[example["items"][position]].tolist()
        bears_loss = position >= len(example["items"]) - example.get("num_targets", 10**9)
        row["input_ids"] += [2 + example["behaviors"][position], *codes]
        row["labels"] += [-100, *(codes if bears_loss else [-100, -100])]
        row["attention_mask"] += [1] * 3
        row["session_ids"] += [session] * 3
    for name, filler in {"input_ids": 0, "attention_mask": 0, "labels": -100, "session_ids": 0}.items():
        row[name] += [filler] * (3 * width - len(row[name]))
    return row


def test_two_rows_by_hand():
    batch = HistoryCollator(ITEM_TOKENS, VOCABULARY)(
        [sample([0, 2, 1], [0, 1, 0], [7, 7, 9]), sample([1], [1], [4])],
    )
    assert batch["input_ids"].tolist() == [[2, 4, 7, 3, 6, 9, 2, 5, 8], [3, 5, 8, 0, 0, 0, 0, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1] * 9, [1, 1, 1, 0, 0, 0, 0, 0, 0]]
    assert batch["session_ids"].tolist() == [[1, 1, 1, 1, 1, 1, 2, 2, 2], [1, 1, 1, 0, 0, 0, 0, 0, 0]]
    x = -100
    assert batch["labels"].tolist() == [[x, 4, 7, x, 6, 9, x, 5, 8], [x, 5, 8, x, x, x, x, x, x]]


def test_a_validation_sample_bears_loss_on_its_target_alone():
    batch = HistoryCollator(ITEM_TOKENS, VOCABULARY)([sample([0, 2, 1], [0, 1, 0], [1, 1, 2], num_targets=1)])
    x = -100
    assert batch["labels"].tolist() == [[x, x, x, x, x, x, x, 5, 8]]


def test_behavior_tokens_bear_loss_only_on_request_and_only_where_codes_do():
    collate = HistoryCollator(ITEM_TOKENS, VOCABULARY, behavior_loss=True)
    batch = collate([sample([0, 2, 1], [0, 1, 0], [1, 1, 2], num_targets=2)])
    x = -100
    assert batch["labels"].tolist() == [[x, x, x, 3, 6, 9, 2, 5, 8]]


def test_rows_keep_the_last_interactions_and_one_more():
    collate = HistoryCollator(ITEM_TOKENS, VOCABULARY, max_history_items=1)
    batch = collate([sample([0, 1, 2], [0, 0, 1], [1, 2, 3], num_targets=5)])
    assert batch["input_ids"].tolist() == [[2, 5, 8, 3, 6, 9]]
    assert batch["session_ids"].tolist() == [[1, 1, 1, 2, 2, 2]]
    assert batch["labels"].tolist() == [[-100, 5, 8, -100, 6, 9]]


@pytest.mark.parametrize("as_arrays", [False, True])
@pytest.mark.parametrize("with_targets", [False, True])
def test_random_samples_equal_a_loop_over_them(as_arrays, with_targets):
    generator = np.random.default_rng(0)
    samples = []
    for _ in range(20):
        length = int(generator.integers(1, 9))
        columns = [generator.integers(3, size=length), generator.integers(2, size=length)]
        columns.append(np.sort(generator.integers(4, size=length)))
        more = {"num_targets": int(generator.integers(1, 4))} if with_targets else {}
        samples.append(sample(*(column if as_arrays else column.tolist() for column in columns), **more))
    batch = HistoryCollator(ITEM_TOKENS, VOCABULARY, max_history_items=5)(samples)
    width = batch["input_ids"].shape[1] // 3
    rows = [naive_row(example, width, window=6) for example in samples]
    for name, tensor in batch.items():
        assert tensor.dtype == torch.int64
        assert tensor.tolist() == [row[name] for row in rows], name


def test_widths_are_rounded_up_in_whole_items():
    collate = HistoryCollator(ITEM_TOKENS, VOCABULARY, pad_to_multiple_of=4)
    batch = collate([sample([0] * 5, [0] * 5, [1] * 5)])
    assert batch["input_ids"].shape == (1, 8 * 3)
    assert batch["attention_mask"].sum() == 5 * 3


def test_no_samples_give_a_row_that_bears_no_loss():
    batch = HistoryCollator(ITEM_TOKENS, VOCABULARY)([])
    assert batch["input_ids"].shape == (1, 3)
    assert batch["attention_mask"].all()
    assert (batch["labels"] == -100).all()


@pytest.mark.parametrize(
    ("item", "behavior", "message"),
    [
        (3, 0, "names item 3, but the item tokenizer knows items 0 to 2"),
        (-1, 0, "names item -1, but"),
        (0, 2, "names behavior 2, but the item tokenizer knows behaviors 0 to 1"),
    ],
)
def test_what_the_tokenizer_does_not_know_is_refused(item, behavior, message):
    with pytest.raises(ValueError, match=message):
        HistoryCollator(ITEM_TOKENS, VOCABULARY)([sample([0, item], [0, behavior], [1, 1])])


def test_an_empty_sample_is_refused():
    with pytest.raises(ValueError, match="at least one interaction"):
        HistoryCollator(ITEM_TOKENS, VOCABULARY)([sample([0], [0], [1]), sample([], [], [])])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_history_items": 0}, "`max_history_items` must be at least 1, got 0"),
        ({"pad_to_multiple_of": 0}, "`pad_to_multiple_of` must be at least 1, got 0"),
        ({"item_tokens": torch.zeros(3, 4)}, r"must be \[items, 2\].*got shape \[3, 4\]"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        HistoryCollator(**{"item_tokens": ITEM_TOKENS, "vocabulary": VOCABULARY} | settings)


def test_packed_rows_by_hand():
    collate = HistoryCollator(ITEM_TOKENS, VOCABULARY, max_history_items=2, packing=True, with_times=True)
    samples = [
        {**sample([0], [1], [5]), "times": [50]},
        {**sample([1, 2, 0], [0, 0, 1], [3, 3, 4]), "times": [1, 2, 3]},
        {**sample([2, 1], [1, 0], [8, 9]), "times": [7, 8]},
    ]
    batch = collate(samples)
    assert batch["input_ids"].tolist() == [[2, 5, 8, 2, 6, 9, 3, 4, 7], [3, 6, 9, 2, 5, 8, 3, 4, 7]]
    assert batch["segment_ids"][:, ::3].tolist() == [[1, 1, 1], [1, 1, 2]]
    assert batch["session_ids"][:, ::3].tolist() == [[1, 1, 2], [1, 2, 1]]
    assert batch["event_times"].tolist() == [[1, 1, 1, 2, 2, 2, 3, 3, 3], [7, 7, 7, 8, 8, 8, 50, 50, 50]]
    assert batch["attention_mask"].all()


def test_no_behavior_is_to_be_predicted_by_the_user_before():
    collate = HistoryCollator(ITEM_TOKENS, VOCABULARY, max_history_items=2, packing=True, behavior_loss=True)
    batch = collate([sample([0], [1], [5]), sample([2, 1], [1, 0], [8, 9])])
    assert batch["labels"].tolist() == [[3, 6, 9, 2, 5, 8, -100, 4, 7]]


@pytest.mark.parametrize("packing", [False, True])
def test_micro_batches_hold_every_sample_once_within_the_budget(packing):
    generator = np.random.default_rng(3)
    lengths = generator.integers(1, 12, size=40)
    samples = [sample([number % 3] * length, [0] * length, [0] * length) for number, length in enumerate(lengths)]
    collator = HistoryCollator(ITEM_TOKENS, VOCABULARY, max_history_items=9, packing=packing, pad_to_multiple_of=2)
    batches = MicroBatchCollator(collator, max_tokens=100)(samples)
    whole = collator(samples)
    assert len(batches) > 3
    assert all(batch["input_ids"].numel() <= 100 for batch in batches)
    assert sum(int(batch["attention_mask"].sum()) for batch in batches) == 3 * lengths.clip(max=10).sum()
    found = torch.cat([batch["input_ids"].flatten() for batch in batches])
    assert torch.equal(found[found > 0].bincount(), whole["input_ids"][whole["input_ids"] > 0].bincount())


def test_a_budget_below_one_row_is_refused():
    collator = HistoryCollator(ITEM_TOKENS, VOCABULARY, max_history_items=9, pad_to_multiple_of=4)
    with pytest.raises(ValueError, match="must hold the longest row, 12 items of 3 tokens, got 35.* at least 36"):
        MicroBatchCollator(collator, max_tokens=35)
