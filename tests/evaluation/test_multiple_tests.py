"""Holm's correction and the test over seeds, by hand."""

from dataclasses import replace

import numpy as np
import pytest

from genrec.evaluation.multiple_tests import ModelTest, corrected, holm, sign_flip_p


def test_holm_by_hand():
    # Sorted .01 .02 .03 .04: times 4, 3, 2, 1 gives .04 .06 .06 .04, and none may fall below one before it.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])


def test_holm_of_one_is_itself_and_none_exceeds_one():
    assert holm([0.2]) == [0.2]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_refuses_what_is_no_probability():
    with pytest.raises(ValueError, match=r"`p_values` must lie in \[0, 1\], got \[1.5\]"):
        holm([1.5])


def test_sign_flips_by_hand():
    # Of 16 sign patterns of (3, 1, 1, -1) the sums reach |4| for all-equal signs of the first three, the last any:
    # 3+1+1-1 = 4, 3+1+1+1 = 6, 3+1-1+1 = 4, 3-1+1+1 = 4 and their negatives: 8 of 16.
    assert sign_flip_p([3.0, 1.0, 1.0, -1.0]) == 0.5
    assert sign_flip_p([1.0, 2.0, 3.0]) == 2 / 8
    assert sign_flip_p([1.0, -1.0]) == 1.0


def test_a_single_seed_says_nothing():
    assert sign_flip_p([0.5]) is None


def test_of_many_seeds_the_flips_are_drawn():
    assert sign_flip_p([0.1] * 17) < 0.001
    assert sign_flip_p([0.1, -0.1] * 10) == 1
    values = np.random.default_rng(0).normal(0.3, 1, size=16)
    exact, drawn = sign_flip_p(values), sign_flip_p([*values, 0.0])  # a zero changes nothing
    assert drawn == pytest.approx(exact, abs=0.02)
    assert drawn == sign_flip_p([*values, 0.0])


def test_tests_without_a_p_value_are_no_part_of_the_family():
    test = ModelTest("temporal", "buy", "a", "b", 0.1, None, None, 0.02, "records")
    untested = replace(test, p=None)
    tests = corrected([test, untested, replace(test, p=0.03)])
    assert [each.adjusted for each in tests] == [0.04, None, 0.04]
