"""A catalog numbered along the log is told from one whose order says nothing."""

import numpy as np
import pytest

from genrec.data.histories import as_histories
from genrec.data.numbering import WITHIN, numbering_of

NUM_ITEMS = 4001


def log_of(numbers):
    """Users of ten items each, in the order of these catalog rows."""
    users = [[(int(item), "view", time) for time, item in enumerate(row)] for row in np.reshape(numbers, (-1, 10))]
    return as_histories(users, list(range(NUM_ITEMS)), "view")


def test_numbers_along_the_log_tell():
    found = numbering_of(log_of(np.arange(4000)))
    assert (found.share, found.chance, found.steps) == (1.0, pytest.approx(2 * WITHIN / 4000), 3600)
    assert found.tells


def test_numbers_in_a_random_order_do_not():
    found = numbering_of(log_of(np.random.default_rng(0).permutation(4000)))
    assert found.share == pytest.approx(found.chance, abs=0.01)
    assert not found.tells


def test_repeats_are_no_steps_and_few_steps_tell_nothing():
    found = numbering_of(log_of([3] * 10))
    assert (found.share, found.steps, found.tells) == (0.0, 0, False)
    assert not numbering_of(log_of(np.arange(10))).tells
