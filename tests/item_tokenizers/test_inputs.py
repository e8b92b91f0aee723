from dataclasses import replace

import numpy as np
import pytest
import torch

from genrec.data.behaviors import BehaviorLadder
from genrec.data.candidates import Asked, QueryContext
from genrec.data.histories import Histories, as_histories, offsets_from_counts
from genrec.data.neighbors import NeighborIndex
from genrec.data.recent_events import RecentEvents
from genrec.item_tokenizers.inputs import candidate_tensors, moments_asked, prompt_tensors, session_ranks
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


def timed_histories() -> Histories:
    """Three users: two events, none, one."""
    events = [[(0, "view", 100), (4, "buy", 160)], [], [(8, "cart", 90_000)]]
    return as_histories(events, np.arange(NUM_ITEMS), LADDER)


def test_without_a_moment_a_history_is_asked_about_a_second_after_its_last_event():
    assert moments_asked(timed_histories()).tolist() == [161, 0, 90_001]
    asked = replace(timed_histories(), query_times=np.array([7, 8, 9]))
    assert moments_asked(asked).tolist() == [7, 8, 9]


def test_times_before_1970_are_times():
    histories = as_histories([[(0, "view", -1000), (1, "view", -500)], []], np.arange(NUM_ITEMS), LADDER)
    assert moments_asked(histories).tolist() == [-499, 0]


def test_a_negative_number_of_items_is_refused():
    with pytest.raises(ValueError, match=r"`max_history_items` must be at least 0, got -1\. Leave it out to write all"):
        prompt_tensors(random_histories(0), ITEM_TOKENS, VOCABULARY, 1, max_history_items=-1)
    alone = prompt_tensors(random_histories(0), ITEM_TOKENS, VOCABULARY, 1, max_history_items=0)
    assert alone["input_ids"].shape == (12, 1)


def test_times_stand_at_every_token_and_the_querys_at_the_behavior_asked_for():
    prompts = prompt_tensors(timed_histories(), ITEM_TOKENS, VOCABULARY, 2)
    assert prompts["event_times"].tolist() == [
        [100] * 3 + [160] * 3 + [161],
        [0] * 6 + [0],
        [0] * 3 + [90_000] * 3 + [90_001],
    ]
    at = replace(timed_histories(), query_times=np.array([500, 600, 95_000]))
    prompts = prompt_tensors(at, ITEM_TOKENS, VOCABULARY, 2, max_history_items=1)
    assert prompts["event_times"].tolist() == [[160] * 3 + [500], [0] * 3 + [600], [90_000] * 3 + [95_000]]


def test_histories_without_times_have_none():
    untimed = random_histories(0)
    assert "event_times" not in prompt_tensors(untimed, ITEM_TOKENS, VOCABULARY, 0)
    assert "event_times" in prompt_tensors(replace(untimed, query_times=np.full(12, 5)), ITEM_TOKENS, VOCABULARY, 0)


@pytest.mark.parametrize(("has_trend", "has_neighbors"), [(True, True), (True, False), (False, True), (False, False)])
def test_candidates_are_what_the_context_finds_with_codes_for_items(has_trend: bool, has_neighbors: bool):
    histories = timed_histories()
    context = QueryContext(
        RecentEvents.of(histories), NeighborIndex.of(histories), (86_400,), num_rising=4, num_recent=2
    )
    asked = Asked.of_histories(replace(histories, query_times=np.array([200, 200, 90_001])), [2], 2)
    tensors = candidate_tensors(context, asked, ITEM_TOKENS, has_trend=has_trend, has_neighbors=has_neighbors)
    for name, is_on, find in (("trend", has_trend, context.rising), ("neighbor", has_neighbors, context.nearby)):
        assert (f"{name}_tokens" in tensors) == (f"{name}_features" in tensors) == is_on
        if not is_on:
            continue
        items, features = find(asked)
        expected = [[ITEM_TOKENS[item].tolist() if item >= 0 else [0, 0] for item in row] for row in items.tolist()]
        assert tensors[f"{name}_tokens"].tolist() == expected
        assert tensors[f"{name}_tokens"].dtype == torch.int64
        assert tensors[f"{name}_features"].tolist() == features.tolist()
    if has_trend:  # items 4 and 0 before second 200; all of them a day later, when the oldest has left the window
        assert tensors["trend_tokens"][0].tolist() == [[6, 9], [5, 8], [0, 0], [0, 0]]
        assert tensors["trend_tokens"][2].tolist() == [[7, 10], [0, 0], [0, 0], [0, 0]]
