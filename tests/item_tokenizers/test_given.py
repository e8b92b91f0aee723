import numpy as np
import pytest
import torch

from genrec.item_tokenizers import GivenCodesTokenizer
from genrec.item_tokenizers.given import random_codes

COLLIDING = [[0, 1], [0, 1], [1, 0], [1, 2]]


def from_codes(codes=COLLIDING, **options):
    return GivenCodesTokenizer.from_codes(codes, list("abcdef")[: len(codes)], "view,buy", **options)


def test_codes_without_collision_are_taken_as_they_are():
    codes = [[3, 0], [1, 4], [1, 3]]
    tokenizer = from_codes(np.array(codes, dtype=np.uint8))
    assert tokenizer.codes.tolist() == codes
    assert tokenizer.codebook_sizes == [4, 5]


def test_repair_gives_the_next_free_last_code_with_wrap_around():
    assert from_codes().codes.tolist() == [[0, 1], [0, 2], [1, 0], [1, 2]]
    assert from_codes([[0, 1], [0, 1], [0, 2]]).codes.tolist() == [[0, 1], [0, 0], [0, 2]]


def test_kept_collisions_are_reported_and_decode_to_the_first_item():
    tokenizer = from_codes(on_collision="keep")
    assert tokenizer.codes.tolist() == COLLIDING
    report = tokenizer.report()
    assert report.raw_collision_rate == report.collision_rate == 0.25
    assert tokenizer.decode(tokenizer.item_tokens) == ["a", "a", "c", "d"]
    assert tokenizer.trie().num_items == 4


def test_kept_collisions_stay_when_items_are_added():
    tokenizer = from_codes(on_collision="keep").add_items(["e"], [[1, 2]])
    assert tokenizer.codes[4].tolist() == [1, 2]


def test_repaired_tokenizers_repair_new_items_around_the_old():
    tokenizer = from_codes().add_items(["e", "f"], [[0, 1], [0, 1]])
    assert tokenizer.codes[:4].tolist() == [[0, 1], [0, 2], [1, 0], [1, 2]]
    assert tokenizer.codes[4].tolist() == [0, 0]
    assert tokenizer.codes[5].tolist() == [1, 1]  # prefix 0 is full


def test_explicit_sizes_leave_codes_for_later():
    tokenizer = GivenCodesTokenizer([2, 4]).fit(COLLIDING, list("abcd"), "view,buy")
    assert tokenizer.codebook_sizes == [2, 4]
    assert tokenizer.add_items(["e"], [[1, 3]]).encode(["e"]).tolist() == [[1, 3]]


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ([[0.0, 1.0]], "integers .items, levels. with one row for each of the 1 `item_ids`, got float64"),
        ([0], "got int64 of shape"),
        ([[]], "integers"),
        ([[0, -1]], r"Every item needs a code, .* row 0 \(item 'a'\) has \[0, -1\]. Give it a code"),
    ],
)
def test_codes_that_are_none_are_refused(codes, message):
    with pytest.raises(ValueError, match=message):
        from_codes(codes)


def test_codes_outside_the_codebooks_are_refused_by_item():
    with pytest.raises(ValueError, match=r"below the codebook sizes \[2, 3\], but row 0 \(item 'e'\) has \[0, 3\]"):
        from_codes().add_items(["e"], [[0, 3]])
    with pytest.raises(ValueError, match="must have 2 levels, one per codebook, got 3"):
        from_codes().add_items(["e"], [[0, 0, 0]])
    with pytest.raises(ValueError, match="asks for 5 codes at level 1 and there are 4 items"):
        GivenCodesTokenizer([2, 5]).fit(COLLIDING, list("abcd"), "view,buy")


def test_an_unknown_way_with_collisions_is_refused():
    with pytest.raises(ValueError, match="must be 'keep' or 'repair', got 'ignore'"):
        GivenCodesTokenizer(on_collision="ignore")


@pytest.mark.parametrize("sizes", [[4, 5], [1, 20], [256] * 9])
def test_random_codes_are_different_and_repeatable(sizes):
    codes = random_codes(20, sizes, seed=3)
    assert codes.shape == (20, len(sizes))
    assert len({tuple(code) for code in codes.tolist()}) == 20
    assert (codes < torch.tensor(sizes)).all()
    assert torch.equal(codes, random_codes(20, sizes, seed=3))
    assert not torch.equal(codes, random_codes(20, sizes, seed=4))


def test_more_items_than_random_codes_are_refused():
    with pytest.raises(ValueError, match=r"codebooks \[4, 5\] hold 20 codes, too few for 21 items"):
        random_codes(21, [4, 5])
