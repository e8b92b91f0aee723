"""Paired tests between models of one log, and Holm's correction for there being many of them.

Holm, A simple sequentially rejective multiple test procedure (Scandinavian Journal of Statistics, 1979).
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

MAX_EXACT_SEEDS = 16
NUM_DRAWN_FLIPS = 9_999  # of more seeds, so that no p-value is below 1 / 10,000


@dataclass(frozen=True)
class ModelTest:
    """The first model minus the second, on one protocol and behavior.

    Args:
        protocol: How the log was split.
        behavior: The asked behavior, or `merged`.
        first: The first model's name.
        second: The second model's name.
        difference: Mean over seeds.
        low: Lower end of the difference's interval; None without records.
        high: Upper end.
        p: Two-sided p-value; None where nothing can be tested.
        basis: What was tested over, in words.
        num_seeds: How many trainings of each model it is over; None where neither is drawn, as between two rules.
        adjusted: The p-value after correction for all tests of the family.
    """

    protocol: str
    behavior: str
    first: str
    second: str
    difference: float
    low: float | None
    high: float | None
    p: float | None
    basis: str
    num_seeds: int | None = None
    adjusted: float | None = None


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for there being this many of them, in the given order.

    The smallest is multiplied by their number m, the next by m - 1 and so on; none falls below one before it.

    Raises:
        ValueError: If a value is no probability.

    >>> holm([0.25, 0.125, 0.5])
    [0.5, 0.375, 0.5]
    """
    if any(not 0 <= p <= 1 for p in p_values):
        raise ValueError(f"`p_values` must lie in [0, 1], got {list(p_values)}.")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, number in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[number]))
        adjusted[number] = largest
    return adjusted


def corrected(tests: Sequence[ModelTest]) -> list[ModelTest]:
    """Return the tests with `adjusted` filled in: one family of all that have a p-value."""
    known = [test for test in tests if test.p is not None]
    adjusted = iter(holm([test.p for test in known if test.p is not None]))
    return [test if test.p is None else replace(test, adjusted=next(adjusted)) for test in tests]


def sign_flip_p(differences: Sequence[float]) -> float | None:
    """Return the two-sided p-value of paired differences, one per seed, by flipping their signs in every way.

    Exact and without assumptions on their distribution, but never below `2 / 2^seeds`: three seeds cannot show more
    than 0.25. None for a single seed, which says nothing. Of more than 16 seeds the flips are drawn, always the same.

    >>> sign_flip_p([0.25, 0.5, 0.125])
    0.25
    """
    if len(differences) < 2:
        return None
    values = np.array(differences, dtype=np.float64)
    if len(values) > MAX_EXACT_SEEDS:
        drawn = np.random.default_rng(0).choice((1.0, -1.0), size=(NUM_DRAWN_FLIPS, len(values)))
        flips = np.vstack([np.ones(len(values)), drawn])  # [flips, seeds]; the signs as they are count as one
    else:
        flips = np.array(list(itertools.product((1.0, -1.0), repeat=len(values))))  # [2^seeds, seeds]
    sums = np.abs(flips @ values)
    return float(np.mean(sums >= abs(values.sum()) * (1 - 1e-9)))
