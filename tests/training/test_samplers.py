import itertools

import numpy as np
import pytest

from genrec.training.samplers import LengthBucketBatchSampler


def skewed_lengths(num_samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).geometric(0.05, size=num_samples).clip(max=101)


def padding_share(batches: list[list[int]], lengths: np.ndarray) -> float:
    padded = sum(len(batch) * lengths[batch].max() for batch in batches)
    return 1 - sum(lengths[batch].sum() for batch in batches) / padded


@pytest.mark.parametrize("num_processes", [1, 2, 3])
@pytest.mark.parametrize("num_samples", [1, 2, 8, 33, 100])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_sample_comes_once_per_epoch_whatever_the_number_of_processes(num_processes, num_samples, shuffle):
    shares = [
        list(
            LengthBucketBatchSampler(
                skewed_lengths(num_samples), 6, num_processes=num_processes, process_index=index, shuffle=shuffle
            )
        )
        for index in range(num_processes)
    ]
    assert sorted(itertools.chain(*itertools.chain(*shares))) == list(range(num_samples))
    assert len({len(share) for share in shares}) == 1, "all processes must make the same number of steps"


def test_two_processes_step_through_the_batches_of_one():
    lengths = skewed_lengths(50)
    whole = LengthBucketBatchSampler(lengths, 8, pool_batches=3, seed=5)
    parts = [
        LengthBucketBatchSampler(lengths, 8, num_processes=2, process_index=index, pool_batches=3, seed=5)
        for index in range(2)
    ]
    for epoch in range(3):
        for sampler in (whole, *parts):
            sampler.set_epoch(epoch)
        dealt = [sorted(first + second) for first, second in zip(*parts, strict=True)]
        assert dealt == [sorted(batch) for batch in whole]


def test_batches_are_full_but_one():
    sampler = LengthBucketBatchSampler(skewed_lengths(50), batch_size=8)
    sizes = [len(batch) for batch in sampler]
    assert sorted(sizes) == [2] + [8] * 6
    assert len(sampler) == len(sizes)


def test_bucketing_leaves_a_quarter_of_the_padding_of_random_batches():
    lengths = skewed_lengths(4000)
    bucketed = list(LengthBucketBatchSampler(lengths, 32, pool_batches=16))
    drawn = list(LengthBucketBatchSampler(lengths, 32, pool_batches=1))
    assert padding_share(drawn, lengths) > 0.6
    assert padding_share(bucketed, lengths) < 0.25 * padding_share(drawn, lengths)


def test_the_order_depends_on_seed_and_epoch_alone():
    lengths = skewed_lengths(100)

    def order(seed: int, epoch: int) -> list[list[int]]:
        sampler = LengthBucketBatchSampler(lengths, 10, pool_batches=2, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)


def test_batches_of_long_and_short_samples_are_mixed():
    lengths = np.arange(640)
    means = [lengths[batch].mean() for batch in LengthBucketBatchSampler(lengths, 10, pool_batches=64)]
    assert means != sorted(means)


def test_without_shuffling_batches_run_from_long_to_short():
    lengths = np.array([3, 9, 1, 7, 5])
    assert list(LengthBucketBatchSampler(lengths, 2, shuffle=False)) == [[1, 3], [4, 0], [2]]


def test_a_process_without_a_share_of_the_last_batch_gets_an_empty_one():
    sampler = LengthBucketBatchSampler(np.array([3, 2, 1]), 2, num_processes=2, process_index=1, shuffle=False)
    assert list(sampler) == [[1], []]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        ({"batch_size": 2, "pool_batches": 0}, "`pool_batches` must be at least 1, got 0"),
    ],
)
def test_impossible_sizes_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LengthBucketBatchSampler(np.array([1, 2]), **settings)


def test_an_empty_dataset_is_refused():
    with pytest.raises(ValueError, match="the dataset has 0 rows"):
        LengthBucketBatchSampler(np.array([]), 2)
