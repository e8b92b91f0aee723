"""Token ids are arithmetic; the golden layout of the recorded logits is one instance."""

from genrec.item_tokenizers.vocabulary import Vocabulary


def test_the_layout_of_the_recorded_model():
    vocabulary = Vocabulary(num_behaviors=4, codebook_sizes=(16, 16, 16))
    assert [vocabulary.behavior_token(behavior) for behavior in range(4)] == [2, 3, 4, 5]
    assert vocabulary.level_offsets == (6, 22, 38)
    assert vocabulary.vocab_size == 54
    assert vocabulary.tokens_per_item == 4


def test_blocks_of_different_sizes_do_not_overlap():
    vocabulary = Vocabulary(num_behaviors=1, codebook_sizes=(2, 5, 3))
    blocks = [range(start, start + size) for start, size in zip(vocabulary.level_offsets, (2, 5, 3), strict=True)]
    assert [token for block in blocks for token in block] == list(range(3, vocabulary.vocab_size))
