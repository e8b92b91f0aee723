import pytest
import torch

from genrec.item_tokenizers import ChunkedIDTokenizer
from genrec.item_tokenizers.chunked import digits


def fit(num_items, *args, **settings):
    return ChunkedIDTokenizer(*args, **settings).fit(None, range(num_items), "view,buy")


def test_digits_are_those_of_int():
    for base, text in [(2, "1011"), (8, "7012"), (36, "zz9a")]:
        number = torch.tensor([int(text, base)])
        expected = [int(digit, base) for digit in text]
        assert digits(number, [base] * 4, balanced=False)[0].tolist() == expected
        assert digits(number, [base] * 4)[0].tolist() == expected[::-1]


def test_least_significant_first_balances_the_first_level():
    """65 items in base 64: with the other order, 64 of them would share the first code."""
    balanced, plain = fit(65, 64), fit(65, 64, balanced=False)
    assert torch.bincount(balanced.codes[:, 0]).max() == 2
    assert torch.bincount(plain.codes[:, 0]).max() == 64


@pytest.mark.parametrize(("num_items", "levels"), [(64, 1), (65, 2), (4096, 2), (4097, 3)])
def test_there_are_as_few_digits_as_possible(num_items, levels):
    assert fit(num_items, 64).codebook_sizes == [64] * levels


def test_shuffling_numbers_items_at_random_but_repeatably():
    plain = fit(50, 8)
    first, second, other = (fit(50, 8, shuffle=True, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.codes, second.codes)
    assert not torch.equal(first.codes, plain.codes)
    assert not torch.equal(first.codes, other.codes)
    assert sorted(first.codes.tolist()) == sorted(plain.codes.tolist())


def test_new_items_take_the_smallest_free_numbers():
    tokenizer = fit(5, 3).remove_items([1])
    tokenizer.add_items(["x", "y"])
    assert tokenizer.encode(["x", "y"]).tolist() == [[1, 0], [2, 1]]  # numbers 1 and 5


def test_numbers_that_run_out_are_refused():
    with pytest.raises(ValueError, match="2 digits in base 3 name 9 items, too few for 5 and 5 more"):
        fit(5, 3).add_items(list("abcde"))


def test_auto_leaves_room_for_new_items():
    tokenizer = fit(20)
    assert tokenizer.codebook_sizes == [5, 5]
    assert len(tokenizer.add_items(list("abcde")).codes.unique(dim=0)) == 25


def test_a_base_larger_than_the_catalog_is_refused():
    with pytest.raises(ValueError, match="asks for 64 codes at level 0 and there are 63 items"):
        fit(63, 64)


@pytest.mark.parametrize("chunk_size", [1, 0, "big", 2.5])
def test_a_base_that_is_none_is_refused(chunk_size):
    with pytest.raises(ValueError, match=r'`chunk_size` must be "auto" or at least 2'):
        ChunkedIDTokenizer(chunk_size)


def test_chunked_ids_pass_their_report():
    report = fit(3_000).report()
    assert (report.status, report.raw_collision_rate, report.reconstruction_error) == ("pass", 0.0, None)
