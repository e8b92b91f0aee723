"""Behavior dropping, against the rule written user by user."""

from dataclasses import replace
from math import comb

import numpy as np
import pytest

from genrec.data.augmentation import drop_behaviors, drop_share
from genrec.data.histories import Histories, History, as_histories
from genrec.data.market import SyntheticMarket

LADDER = "view,like=save,cart,buy"


@pytest.fixture(scope="module")
def histories() -> Histories:
    return SyntheticMarket(num_users=80, num_items=40, num_categories=2, seed=3, ladder=LADDER).histories()


def events_of(history: History) -> list[tuple[int, ...]]:
    columns = (history.items, history.behaviors, history.sessions, history.times)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def counts_that_stay(history: History, step: int, copies: int, levels: tuple[int, ...]) -> list[int]:
    """The rule for one user, in whole numbers: of n interactions, n k // (K (level + 1)) go, none of the top level."""
    stay = []
    for behavior, level in enumerate(levels):
        count = history.behaviors.tolist().count(behavior)
        stay.append(count if level == max(levels) else count - count * step // (copies * (level + 1)))
    return stay


def is_subsequence(part: list, whole: list) -> bool:
    rest = iter(whole)
    return all(any(element == other for other in rest) for element in part)


@pytest.mark.parametrize("copies", [1, 3, 7])
def test_copies_keep_order_and_lose_exactly_the_stated_numbers(histories, copies):
    result = drop_behaviors(histories, copies=copies, seed=1)
    levels = histories.ladder.levels
    expected = [
        (row, step)
        for step in range(1, copies + 1)
        for row, history in enumerate(histories)
        if sum(counts_that_stay(history, step, copies, levels)) >= 2
    ]
    assert len(result) == len(histories) + len(expected)
    for place, (row, step) in enumerate(expected, start=len(histories)):
        copy = result[place]
        assert result.users[place] == histories.users[row]
        assert np.bincount(copy.behaviors, minlength=5).tolist() == counts_that_stay(
            histories[row], step, copies, levels
        )
        assert is_subsequence(events_of(copy), events_of(histories[row]))


@pytest.mark.parametrize("copies", [1, 4])
def test_ratios_short_of_one_leave_the_stated_numbers(histories, copies):
    """Copy k of K loses the ratio k/(K+1): of n interactions, n k // ((K + 1) (level + 1))."""
    result = drop_behaviors(histories, copies=copies, seed=1, reaches_one=False)
    levels = histories.ladder.levels
    expected = [
        counts_that_stay(history, step, copies + 1, levels) for step in range(1, copies + 1) for history in histories
    ]
    expected = [counts for counts in expected if sum(counts) >= 2]
    behaviors = [np.bincount(result[place].behaviors, minlength=5).tolist() for place in range(len(result))]
    assert behaviors[len(histories) :] == expected
    assert result[len(result) - 1].behaviors.tolist().count(0) > 0


def test_originals_come_first_untouched(histories):
    result = drop_behaviors(histories, copies=2, seed=1)
    for row, history in enumerate(histories):
        assert events_of(result[row]) == events_of(history)
    alone = drop_behaviors(histories, copies=0, seed=1)
    assert len(alone) == len(histories)
    assert np.array_equal(alone.items, histories.items)


def test_rounding_follows_the_fraction_and_not_floating_point():
    """floor(49 * (1 / 49)) in floating point is 0, but one of 49 views must go in the first of 49 copies."""
    assert int(49 * (1 / 49)) == 0
    views = as_histories([[("a", "view")] * 49 + [("a", "buy")]], ["a"], "view,buy")
    assert drop_behaviors(views, copies=49, seed=0).lengths[1] == 49


def test_a_user_loses_the_same_whoever_else_is_there(histories):
    rows = np.array([41, 7, 60])
    for users in (histories.users, np.array([f"user-{user}" for user in histories.users], dtype=object)):
        named = replace(histories, users=users)
        whole = drop_share(named, ratio=0.5, seed=4)
        few = drop_share(named.select(rows), ratio=0.5, seed=4)
        assert [events_of(history) for history in few] == [events_of(whole[row]) for row in rows]


def test_seed_and_copy_decide(histories):
    first, again, other = (drop_behaviors(histories, copies=2, seed=seed) for seed in (5, 5, 6))
    assert np.array_equal(first.times, again.times)
    assert np.array_equal(first.offsets, other.offsets)
    assert not np.array_equal(first.times, other.times)
    halves = drop_share(histories, ratio=0.5, seed=5)
    second_half = first.select(np.arange(len(histories), len(first))).select(np.arange(len(halves)))
    assert not np.array_equal(halves.times, second_half.times[: len(halves.times)])


def test_every_subset_is_equally_likely():
    """Two of five views go: each of the ten pairs for a tenth of 20,000 users, within five standard deviations."""
    num_users = 20_000
    one = as_histories([[(item, "view") for item in "abcde"] + [("a", "buy")]], list("abcde"), "view,buy")
    many = replace(one.select(np.zeros(num_users, dtype=np.int64)), users=np.arange(num_users))
    kept = drop_share(many, ratio=0.4, seed=8)
    views = kept.keep(kept.behaviors == 0)
    masks = np.bincount(views.rows, weights=2.0**views.items).astype(int)
    _, counts = np.unique(masks, return_counts=True)
    share = 1 / comb(5, 2)
    assert len(counts) == comb(5, 2)
    assert np.abs(counts / num_users - share).max() < 5 * np.sqrt(share * (1 - share) / num_users)


def test_a_share_drops_row_for_row_and_leaves_no_history_empty():
    log = as_histories(
        [
            [("a", "view"), ("b", "view"), ("a", "cart"), ("b", "cart")],
            [("a", "view")],
            [],
            [("b", "view"), ("b", "buy")],
        ],
        ["a", "b"],
        "view,cart,buy",
    )
    result = drop_share(replace(log, query_times=np.arange(4)), ratio=1.0, seed=0)
    assert [history.behaviors.tolist() for history in result] == [[1], [0], [], [2]]
    assert result.query_times.tolist() == [0, 1, 2, 3]
    assert drop_share(log, ratio=0.0, seed=0).lengths.tolist() == log.lengths.tolist()


def test_a_copys_sessions_begin_when_they_began_even_if_their_first_interactions_are_dropped():
    """Else the copy would be asked about later, and what was dropped of the session would count as known before it."""
    events = [("a", "view", 0), ("b", "view", 7000), ("a", "view", 7060), ("a", "buy", 7120), ("b", "buy", 7180)]
    histories = as_histories([events], ["a", "b"], "view,buy")
    assert histories.session_times is None
    original, copy = drop_behaviors(histories, copies=1, seed=0)
    assert original.times.tolist() == [0, 7000, 7060, 7120, 7180]
    assert copy.times.tolist() == [7120, 7180]
    starts = drop_behaviors(histories, copies=1, seed=0).session_times
    assert starts.tolist() == [0, 7000, 7000, 7000, 7000, 7000, 7000]


def test_query_times_go_with_their_rows(histories):
    timed = replace(histories, query_times=histories.users * 10)
    result = drop_behaviors(timed, copies=2, seed=1)
    assert np.array_equal(result.query_times, result.users * 10)


def test_numbers_out_of_range_are_refused(histories):
    with pytest.raises(ValueError, match="`copies` must be at least 0, got -1"):
        drop_behaviors(histories, copies=-1, seed=0)
    with pytest.raises(ValueError, match=r"`ratio` must be between 0 and 1, got 1\.5"):
        drop_share(histories, ratio=1.5, seed=0)
