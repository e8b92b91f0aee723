"""`TrieConstrainedLogitsProcessor`: stateless, exact, and never free text."""

import itertools

import pytest
import torch

from genrec.generation.logits_processor import TrieConstrainedLogitsProcessor
from genrec.generation.trie import ItemTrie

BEHAVIOR = 3
TOKENS = torch.tensor([[5, 9, 12], [5, 9, 14], [5, 10, 12], [7, 8, 13]])
VOCAB_SIZE = 15
OFFSETS = (4, 8, 12)


@pytest.fixture
def trie() -> ItemTrie:
    return ItemTrie(TOKENS, VOCAB_SIZE, OFFSETS)


def allowed_after(processor: TrieConstrainedLogitsProcessor, prompts: list[list[int]]) -> list[list[int]]:
    scores = processor(torch.tensor(prompts), torch.zeros(len(prompts), VOCAB_SIZE))
    return [row.isfinite().nonzero().flatten().tolist() for row in scores]


def test_every_prefix_is_continued_by_items_only(trie: ItemTrie):
    processor = TrieConstrainedLogitsProcessor(trie)
    items = {tuple(row) for row in TOKENS.tolist()}
    blocks = [range(4, 8), range(8, 12), range(12, 15)]
    for depth in range(4):
        for prefix in itertools.product(*blocks[:depth]):
            allowed = allowed_after(processor, [[0, 2, *TOKENS[0].tolist(), BEHAVIOR, *prefix]])[0]
            assert allowed == sorted({item[depth] for item in items if item[:depth] == prefix} if depth < 3 else [])


def test_rows_at_different_places_of_their_item_are_read_by_themselves(trie: ItemTrie):
    rows = [[0, 0, 0, BEHAVIOR], [0, 0, BEHAVIOR, 5], [0, BEHAVIOR, 5, 9], [BEHAVIOR, 7, 8, 13]]
    assert allowed_after(TrieConstrainedLogitsProcessor(trie), rows) == [[5, 7], [9, 10], [12, 14], []]


@pytest.mark.parametrize(
    "tail",
    [
        [0],  # a pad, as after a dead end
        [1],  # a mask
        [BEHAVIOR, 6],  # a code that no item begins with
        [BEHAVIOR, 4],  # below the smallest first code in use
        [BEHAVIOR, 5, 8],  # both codes exist, the pair does not
        [BEHAVIOR, 9],  # a second code without the first
        [0, 5],  # a first code that no behavior opens
        [5, 9],
        [13, 5],  # a first code behind a last one
        [13, 5, 9],
    ],
)
def test_a_foreign_prefix_is_followed_by_nothing(trie: ItemTrie, tail: list[int]):
    assert allowed_after(TrieConstrainedLogitsProcessor(trie), [[0, 0, *tail]]) == [[]]


def test_a_prompt_shorter_than_an_item_is_no_item(trie: ItemTrie):
    assert allowed_after(TrieConstrainedLogitsProcessor(trie), [[9]]) == [[]]
    assert allowed_after(TrieConstrainedLogitsProcessor(trie), [[5, 9]]) == [[]]
    assert allowed_after(TrieConstrainedLogitsProcessor(trie), [[BEHAVIOR, 9]]) == [[]]
    assert allowed_after(TrieConstrainedLogitsProcessor(trie), [[BEHAVIOR, 14]]) == [[]]
    assert allowed_after(TrieConstrainedLogitsProcessor(trie), [[BEHAVIOR]]) == [[5, 7]]


def test_allowed_scores_are_left_as_they_are(trie: ItemTrie):
    scores = torch.arange(2.0 * VOCAB_SIZE).reshape(2, VOCAB_SIZE)
    masked = TrieConstrainedLogitsProcessor(trie)(torch.tensor([[BEHAVIOR], [BEHAVIOR]]), scores)
    assert masked[:, [5, 7]].equal(scores[:, [5, 7]])
    assert scores.isfinite().all()


def test_filters_hold_for_all_users_or_for_each(trie: ItemTrie):
    for_all = TrieConstrainedLogitsProcessor(trie, torch.tensor([True, False, False, False]))
    assert allowed_after(for_all, [[0, 0, BEHAVIOR], [0, BEHAVIOR, 5], [BEHAVIOR, 5, 9]]) == [[5], [9], [12]]
    each = TrieConstrainedLogitsProcessor(trie, torch.tensor([[False, True, False, True], [False] * 4]))
    beams = [[BEHAVIOR, 5, 9], [0, BEHAVIOR, 7], [BEHAVIOR, 5, 9], [0, 0, BEHAVIOR]]
    assert allowed_after(each, beams) == [[14], [8], [], []]


def test_it_moves_to_where_the_scores_are(trie: ItemTrie):
    processor = TrieConstrainedLogitsProcessor(trie, torch.ones(4, dtype=torch.bool))
    processor._move_to(torch.device("meta"))
    assert {processor.trie.device.type, processor.alive.device.type, processor._level_starts.device.type} == {"meta"}
    assert trie.device.type == "cpu"


def test_bad_input_is_refused(trie: ItemTrie):
    with pytest.raises(ValueError, match="model scores 9 tokens but the trie was made for a vocabulary of 15"):
        TrieConstrainedLogitsProcessor(trie)(torch.tensor([[BEHAVIOR]]), torch.zeros(1, 9))
    two_users = TrieConstrainedLogitsProcessor(trie, torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="2 rows, which does not divide the 3 beams"):
        allowed_after(two_users, [[BEHAVIOR]] * 3)
    with pytest.raises(ValueError, match="over the 4 items of the trie"):
        TrieConstrainedLogitsProcessor(trie, torch.ones(5, dtype=torch.bool))
    with pytest.raises(ValueError, match="own token ids, above the behavior tokens"):
        TrieConstrainedLogitsProcessor(ItemTrie(torch.tensor([[5, 6], [6, 5]]), VOCAB_SIZE))
    with pytest.raises(ValueError, match=r"begin at \(2, 4\)"):
        TrieConstrainedLogitsProcessor(ItemTrie(torch.tensor([[2, 4]]), VOCAB_SIZE))


def test_a_model_without_behavior_tokens_opens_items_with_its_start_token(trie: ItemTrie):
    processor = TrieConstrainedLogitsProcessor(trie, start_token=0)
    assert allowed_after(processor, [[0], [0]]) == [[5, 7], [5, 7]]
    assert allowed_after(processor, [[0, 5, 9], [0, 7, 8], [0, 6, 8]]) == [[12, 14], [13], []]
    assert allowed_after(processor, [[BEHAVIOR], [1], [5]]) == [[], [], []]
    assert allowed_after(TrieConstrainedLogitsProcessor(trie), [[0]]) == [[]]
