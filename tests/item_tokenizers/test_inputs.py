import numpy as np
import torch

from genrec.data.behaviors import BehaviorLadder
from genrec.data.histories import Histories, offsets_from_counts
from genrec.item_tokenizers.inputs import prompt_tensors, session_ranks
from genrec.item_tokenizers.vocabulary import Vocabulary

NUM_ITEMS, LADDER = 9, BehaviorLadder.parse("view,cart,buy")
VOCABULARY = Vocabulary(num_behaviors=3, codebook_sizes=(3, 3))
ITEM_TOKENS = torch.tensor([[5 + row // 3, 8 + row % 3] for row in range(NUM_ITEMS)])


def random_histories(seed, num_users=12, longest=7):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, longest + 1, num_users)
    num_events = counts.sum()
    steps = rng.integers(0, 3, num_events)
    sessions = np.concatenate([40 + np.cumsum(part) for part in np.split(steps, np.cumsum(counts)[:-1])])
    return Histories(
        items=rng.integers(0, NUM_ITEMS, num_events),
        behaviors=rng.integers(0, 3, num_events),
        sessions=sessions,
        times=np.zeros(num_events, dtype=np.int64),
        offsets=offsets_from_counts(counts),
        users=np.arange(num_users),
        item_ids=np.arange(NUM_ITEMS),
        ladder=LADDER,
    )


def naive_row(history, asked, max_history_items, width):
    """Tokens and sessions of one user, item by item, padded on the left."""
    tokens, sessions, rank, previous = [], [], 0, None
    events = list(zip(history.items, history.behaviors, history.sessions, strict=True))
    for item, behavior, session in events[-max_history_items:] if max_history_items else []:
        rank += session != previous
        previous = session
        tokens += [2 + behavior, *ITEM_TOKENS[item].tolist()]
        sessions += [rank] * 3
    padding = [0] * (width - len(tokens) - 1)
    mask = padding + [1] * (len(tokens) + 1)
    return [*padding, *tokens, 2 + asked], mask, [*padding, *sessions, rank + 1]


def test_prompts_equal_a_naive_writer():
    for seed, max_history_items in enumerate([1, 3, 100]):
        histories = random_histories(seed)
        batch = prompt_tensors(histories, ITEM_TOKENS, VOCABULARY, 1, max_history_items)
        width = 3 * min(max_history_items, int(histories.lengths.max())) + 1
        rows = [naive_row(history, 1, max_history_items, width) for history in histories]
        for name, expected in zip(("input_ids", "attention_mask", "session_ids"), zip(*rows, strict=True), strict=True):
            assert batch[name].tolist() == list(expected), (name, max_history_items)


def test_no_limit_writes_everything():
    histories = random_histories(5)
    unlimited = prompt_tensors(histories, ITEM_TOKENS, VOCABULARY, 0)
    assert unlimited["input_ids"].shape == (12, 3 * int(histories.lengths.max()) + 1)


def test_nobody_and_nothing():
    nobody = random_histories(0).select(np.zeros(0, dtype=np.int64))
    assert prompt_tensors(nobody, ITEM_TOKENS, VOCABULARY, 2)["input_ids"].shape == (0, 1)
    assert session_ranks(nobody).tolist() == []


def test_two_users_with_the_same_session_number_start_from_one_each():
    histories = random_histories(0, num_users=2, longest=1)
    histories = histories.select(histories.lengths > 0)
    assert session_ranks(histories).tolist() == [1] * len(histories)
