import numpy as np
import pytest

from benchmarks.speed import pointers
from benchmarks.speed.harness import Settings
from genrec.recommender import Recommendations


def test_the_same_users_are_asked_with_and_without_pointers():
    results = pointers.measure(Settings(quick=True))
    assert set(results.ratios) == {"pointers/gamer-plus-tiny"}
    medians = {row["name"]: row["median_seconds"] for row in results.rows}
    assert results.ratios["pointers/gamer-plus-tiny"] == pytest.approx(medians["plain"] / medians["pointers"])


def test_a_list_with_an_item_twice_is_refused():
    items = np.arange(20).reshape(2, 10)
    whole = Recommendations(items, np.zeros((2, 10)), np.arange(20), np.arange(2))
    pointers._check({"plain": whole}, num_users=2)
    twice = Recommendations(np.where(items == 3, 4, items), np.zeros((2, 10)), np.arange(20), np.arange(2))
    with pytest.raises(ValueError, match="plain: a user got fewer than 10 different items"):
        pointers._check({"plain": twice}, num_users=2)
