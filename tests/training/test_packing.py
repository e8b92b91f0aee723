import numpy as np
import pytest

from genrec.training.packing import cut_rows, one_per_row, pack_rows


def skewed_lengths(num_samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).geometric(0.05, size=num_samples).clip(1, 101)


@pytest.mark.parametrize("num_samples", [1, 2, 7, 64, 1000])
def test_every_sample_has_its_own_places(num_samples):
    lengths = skewed_lengths(num_samples, seed=num_samples)
    packed = pack_rows(lengths, capacity=101)
    taken = [
        (row, place)
        for row, start, length in zip(packed.rows, packed.starts, lengths)
        for place in range(start, start + length)
    ]
    assert len(set(taken)) == lengths.sum()
    for row, length in enumerate(packed.lengths):
        assert sorted(place for other, place in taken if other == row) == list(range(length))
    assert packed.lengths.max() <= 101


def test_hardly_a_place_stays_empty():
    """Many short samples fill what long ones leave."""
    lengths = skewed_lengths(1000)
    assert len(pack_rows(lengths, 101).lengths) <= np.ceil(lengths.sum() / 101) * 1.01


def test_long_samples_go_first_and_into_the_fullest_row_with_room():
    packed = pack_rows(np.array([6, 7, 3, 2, 4]), capacity=10)
    assert packed.rows.tolist() == [1, 0, 0, 2, 1]  # 7, 6; then 4 beside 6, 3 beside 7, and no room for 2
    assert packed.starts.tolist() == [0, 0, 7, 0, 6]
    assert packed.lengths.tolist() == [10, 10, 2]


def test_a_sample_longer_than_a_row_is_refused():
    with pytest.raises(ValueError, match="A row of 4 items cannot hold a sample of 5"):
        pack_rows(np.array([5, 1]), capacity=4)


def test_without_packing_each_sample_has_a_row():
    rows = one_per_row(np.array([3, 1]))
    assert (rows.rows.tolist(), rows.starts.tolist(), rows.lengths.tolist()) == ([0, 1], [0, 0], [3, 1])


@pytest.mark.parametrize("budget", [101, 150, 1000, 5000, 10**6])
@pytest.mark.parametrize("num_rows", [1, 3, 500])
def test_micro_batches_keep_the_budget_and_are_nearly_equal(budget, num_rows):
    lengths = skewed_lengths(num_rows, seed=1)
    parts = cut_rows(lengths, budget)
    assert sorted(np.concatenate(parts)) == list(range(num_rows))
    sizes = [len(part) * lengths[part].max() for part in parts]
    assert max(sizes) <= budget
    if len(parts) > 1:
        assert min(sizes[:-1]) > max(sizes) - lengths.max(), "all but the last are full to a row"


def test_as_few_micro_batches_as_the_budget_allows():
    assert [len(part) for part in cut_rows(np.full(10, 5), 20)] == [4, 4, 2]
    assert [len(part) for part in cut_rows(np.full(8, 5), 35)] == [4, 4], "7 and 1 would be fewer at once, but unequal"


def test_a_row_over_the_budget_is_refused():
    with pytest.raises(ValueError, match="A row of 9 items is over the budget of 8"):
        cut_rows(np.array([3, 9]), 8)
