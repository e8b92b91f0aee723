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
        drawn = rng.integers(num_users, size=(size, num_users)) + np.arange(size)[:, None] * num_users
        yield np.bincount(drawn.ravel(), minlength=size * num_users).reshape(size, num_users).astype(np.float64)


def sums_by_user(values: np.ndarray, users: np.ndarray, num_users: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each user's sum of values and number of values, NaN left out.

    Args:
        values: `[records, figures]`.
        users: The user's number of each record, `[records]`.
        num_users: How many users there are.

    Returns:
        Sums and counts, `[users, figures]` each.
    """
    is_counted = ~np.isnan(values)
    sums, counts = (
        np.stack([np.bincount(users, weights=figure, minlength=num_users) for figure in table.T], axis=1)
        for table in (np.where(is_counted, values, 0.0), is_counted)
    )
    return sums, counts


def bootstrap_means(sums: np.ndarray, counts: np.ndarray, num_bootstrap: int, seed: int) -> np.ndarray:
    """Return the mean of every figure in every resample of users, `[resamples, figures]`.

    Args:
        sums: Each user's sum of values, `[users, figures]`.
        counts: Each user's number of values, `[users, figures]`.
        num_bootstrap: How many resamples.
        seed: Seed of the draws.

    A resample that drew no user with a value has the mean NaN.
    """
    ratios = []
    for draws in user_resamples(len(sums), num_bootstrap, seed):
        drawn_counts = draws @ counts
        ratios.append(
            np.divide(draws @ sums, drawn_counts, out=np.full(drawn_counts.shape, np.nan), where=drawn_counts > 0)
        )
    return np.concatenate(ratios)


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
