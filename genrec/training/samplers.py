"""Batches of samples of like length, so that little of a batch is padding.

Padding to the longest sample wastes most of a batch when lengths are skewed, as user histories are. Sorting everything
would end the randomness that stochastic gradients need, so only pools of a few batches are sorted.
"""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class LengthBucketBatchSampler(Sampler[list[int]]):
    """Yields the row numbers of one process's share of each batch.

    With `shuffle`, every epoch draws a new order, cuts it into pools of `pool_batches` batches, sorts each pool by
    length, cuts it into batches and shuffles these. Without, batches run from the longest samples to the shortest.

    The batches depend on the seed, the epoch and `batch_size` alone, which counts the samples of *all* processes: two
    processes step through the same batches as one, and each takes every second sample. Every sample comes exactly once
    per epoch. If the last batch holds fewer samples than there are processes, some processes get an empty list, which
    `HistoryCollator` turns into a row without labels, so that all of them step together.

    Args:
        lengths: Interactions per sample, `[samples]`.
        batch_size: Samples per batch, all processes together.
        num_processes: Among how many processes a batch is dealt out.
        process_index: Which of them this is.
        pool_batches: Batches per sorted pool; 1 draws batches at random, with no regard to length.
        shuffle: Whether to draw a new order in each epoch.
        seed: Together with the epoch, fixes the order.

    Raises:
        ValueError: If a size is not positive or there is no sample.

    Example:
        >>> sampler = LengthBucketBatchSampler(np.array([5, 1, 4, 2]), batch_size=2, shuffle=False)
        >>> list(sampler), len(sampler)
        ([[0, 2], [3, 1]], 2)
    """

    drop_last = False

    def __init__(
        self,
        lengths: np.ndarray,
        batch_size: int,
        *,
        num_processes: int = 1,
        process_index: int = 0,
        pool_batches: int = 16,
        shuffle: bool = True,
        seed: int = 0,
    ) -> None:
        for name, size in {"batch_size": batch_size, "pool_batches": pool_batches}.items():
            if size < 1:
                raise ValueError(f"`{name}` must be at least 1, got {size}.")
        if len(lengths) == 0:
            raise ValueError("There is no sample to train or validate on: the dataset has 0 rows. Check the split.")
        assert 0 <= process_index < num_processes, (process_index, num_processes)
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.num_processes = num_processes
        self.process_index = process_index
        self.pool_batches = pool_batches
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        longest_first = np.argsort(-self.lengths, kind="stable")
        for batch in self._shuffled_batches() if self.shuffle else self._batches(longest_first):
            yield batch[self.process_index :: self.num_processes].tolist()

    def _shuffled_batches(self) -> list[np.ndarray]:
        generator = np.random.default_rng((self.seed, self.epoch))
        drawn = generator.permutation(len(self.lengths))
        # Sorting by (pool, length) keeps the drawn order among equals, since lexsort is stable.
        pools = np.arange(len(drawn)) // (self.pool_batches * self.batch_size)
        order = drawn[np.lexsort((self.lengths[drawn], pools))] if self.pool_batches > 1 else drawn
        batches = self._batches(order)
        return [batches[number] for number in generator.permutation(len(batches))]

    def _batches(self, order: np.ndarray) -> list[np.ndarray]:
        return np.split(order, np.arange(self.batch_size, len(order), self.batch_size))
