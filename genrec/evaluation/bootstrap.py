"""Bootstrap intervals over users: users are drawn with replacement, and all records of a user move together.

A figure is a mean over records, so a resample of users gives the ratio `sum of values / number of records`. All figures
of a run share one set of resamples, drawn in chunks so that memory stays bounded.
"""

import warnings
from collections.abc import Iterator

import numpy as np

WEIGHTS_PER_CHUNK = 1 << 22


def user_resamples(num_users: int, num_bootstrap: int, seed: int) -> Iterator[np.ndarray]:
    """Yield how often each user was drawn, `[resamples, users]` float64, until there are `num_bootstrap` resamples.

    Raises:
        ValueError: If `num_bootstrap` is below 1.

    >>> draws = next(user_resamples(num_users=5, num_bootstrap=3, seed=0))
    >>> draws.shape, draws.sum(axis=1).tolist()
    ((3, 5), [5.0, 5.0, 5.0])
    """
    if num_bootstrap < 1:
        raise ValueError(f"`num_bootstrap`, the number of resamples, must be at least 1, got {num_bootstrap}.")
    rng = np.random.default_rng(seed)
    chunk_size = max(1, WEIGHTS_PER_CHUNK // num_users)
    for start in range(0, num_bootstrap, chunk_size):
        size = min(chunk_size, num_bootstrap - start)
        draws = np.empty((size, num_users))
        for resample in draws:  # one at a time, so that users and counts stay in the processor's cache
            resample[:] = np.bincount(rng.integers(num_users, size=num_users), minlength=num_users)
        yield draws


def sums_by_user(values: np.ndarray, users: np.ndarray, num_users: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each user's sum of values and number of values, NaN left out.

    Args:
        values: `[records, figures]`.
        users: The user's number of each record, `[records]`.
        num_users: How many users there are.

    Returns:
        Sums and counts, `[users, figures]` each.
    """
    sums, counts = (np.empty((values.shape[1], num_users)) for _ in range(2))
    for figure, column in enumerate(values.T):
        is_counted = ~np.isnan(column)
        owners = users[is_counted]
        sums[figure] = np.bincount(owners, weights=column[is_counted], minlength=num_users)
        counts[figure] = np.bincount(owners, minlength=num_users)
    return sums.T, counts.T


def bootstrap_means(sums: np.ndarray, counts: np.ndarray, num_bootstrap: int, seed: int) -> np.ndarray:
    """Return the mean of every figure in every resample of users, `[resamples, figures]`.

    Arguments as in `bootstrap_sums`. A resample that drew no user with a value has the mean NaN.
    """
    return means_of(*bootstrap_sums(sums, counts, num_bootstrap, seed))


def bootstrap_sums(
    sums: np.ndarray, counts: np.ndarray, num_bootstrap: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum and the number of values of every figure in every resample, `[resamples, figures]` each.

    Args:
        sums: Each user's sum of values, `[users, figures]`.
        counts: Each user's number of values, `[users, figures]`.
        num_bootstrap: How many resamples.
        seed: Seed of the draws.
    """
    different, number_of = _different_columns(counts)
    drawn = [(draws @ sums, draws @ different) for draws in user_resamples(len(sums), num_bootstrap, seed)]
    drawn_sums, drawn_counts = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    return drawn_sums, drawn_counts[:, number_of]


def means_of(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return `sums / counts`, of any equal shape; NaN where nothing was counted.

    >>> means_of(np.array([3.0, 0.0]), np.array([2.0, 0.0])).tolist()
    [1.5, nan]
    """
    return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)


def _different_columns(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns that differ, `[rows, different]`, and which of them each column equals, `[columns]`.

    Most figures count the same records, so most products of draws and counts need to be computed only once.

    >>> _different_columns(np.array([[1.0, 2.0, 1.0], [0.0, 2.0, 0.0]]))[1].tolist()
    [0, 1, 0]
    """
    numbers: dict[bytes, int] = {}
    number_of = np.array([numbers.setdefault(column.tobytes(), len(numbers)) for column in table.T])
    return table[:, np.unique(number_of, return_index=True)[1]], number_of


def percentile_interval(resampled: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and upper percentiles that hold the middle `confidence` of the resamples, `[figures]` each.

    NaN resamples are left out; a figure that has no other gets the interval NaN.

    >>> percentile_interval(np.arange(101.0)[:, None], confidence=0.9)
    (array([5.]), array([95.]))
    """
    tail = 50 * (1 - confidence)
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # numpy warns of all-NaN columns
        low, high = np.nanpercentile(resampled, [tail, 100 - tail], axis=0)
    return low, high
