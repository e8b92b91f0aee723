import numpy as np
import pytest

from genrec.data.histories import Histories, as_histories, asked_at
from genrec.data.splits import Sessions, leave_one_out, split_last_session, split_temporal

HOUR = 3600


def histories_of(*users):
    """Histories of `(item, hour)` events: an hour apart is another session."""
    return as_histories(
        [[(item, "view", hour * HOUR) for item, hour in user] for user in users], list(range(10)), "view"
    )


def rows_of(histories: Histories):
    return {user: history.items.tolist() for user, history in zip(histories.users.tolist(), histories, strict=True)}


FOUR = [(1, 0), (2, 0.1), (3, 1), (4, 2), (5, 3), (6, 3.1)]  # sessions {1, 2}, {3}, {4}, {5, 6}
THREE = [(7, 0), (8, 5), (9, 9)]
TWO = [(1, 0), (2, 7)]


def test_sessions_are_ranges_of_events():
    sessions = Sessions.of(histories_of(FOUR, [], TWO))
    assert sessions.rows.tolist() == [0, 0, 0, 0, 2, 2]
    assert sessions.starts.tolist() == [0, 2, 3, 4, 6, 7]
    assert sessions.ends.tolist() == [2, 3, 4, 6, 7, 8]
    assert sessions.numbers.tolist() == [0, 1, 2, 3, 0, 1]
    assert sessions.counts.tolist() == [4, 0, 2]


def test_neighbouring_users_with_the_same_session_number_are_apart():
    sessions = Sessions.of(histories_of([(1, 0)], [(2, 0)]))
    assert sessions.starts.tolist() == [0, 1]


def test_last_session_is_tested_and_the_one_before_validates():
    split = split_last_session(histories_of(FOUR, THREE, TWO))
    assert rows_of(split.train) == {0: [1, 2, 3], 1: [7], 2: [1, 2]}
    assert rows_of(split.validation.histories) == {0: [1, 2, 3], 1: [7]}
    assert rows_of(split.validation.targets) == {0: [4], 1: [8]}
    assert rows_of(split.test.histories) == {0: [1, 2, 3, 4], 1: [7, 8]}
    assert rows_of(split.test.targets) == {0: [5, 6], 1: [9]}
    assert split.test.histories.query_times.tolist() == [3 * HOUR, 9 * HOUR]
    assert split.validation.histories.query_times.tolist() == [2 * HOUR, 5 * HOUR]
    assert split.train.query_times is None


def test_users_with_too_few_sessions_only_train():
    split = split_last_session(histories_of(FOUR, THREE, TWO), min_sessions=4)
    assert split.test.histories.users.tolist() == [0]
    assert rows_of(split.train) == {0: [1, 2, 3], 1: [7, 8, 9], 2: [1, 2]}


def test_temporal_split_cuts_all_users_at_the_same_moments():
    split = split_temporal(histories_of(FOUR, THREE, TWO, [(3, 4)]), 0.4, 0.2)
    assert split.cuts == (2 * HOUR, 7 * HOUR)  # sorted starts: 0 0 0 1 2 3 4 5 7 9
    assert rows_of(split.train) == {0: [1, 2, 3], 1: [7], 2: [1]}
    assert rows_of(split.validation.histories) == {0: [1, 2, 3], 1: [7]}
    assert rows_of(split.validation.targets) == {0: [4], 1: [8]}
    assert rows_of(split.test.histories) == {1: [7, 8]}  # user 2 has two sessions only, user 3 has no earlier one
    assert rows_of(split.test.targets) == {1: [9]}


def test_temporal_history_includes_all_earlier_sessions_also_of_the_validation_period():
    user = [(1, 0), (2, 1), (3, 5), (4, 6), (5, 8), (6, 9)]
    split = split_temporal(histories_of(user, *[[(0, hour)] for hour in (0, 1, 2, 3)]), 0.2, 0.2)
    assert split.cuts == (5 * HOUR, 8 * HOUR)  # sorted starts: 0 0 1 1 2 3 5 6 8 9
    assert rows_of(split.validation.targets) == {0: [3]}
    assert rows_of(split.test.histories) == {0: [1, 2, 3, 4]}
    assert rows_of(split.test.targets) == {0: [5]}


def test_a_session_over_the_cut_trains_nobody_but_is_remembered():
    long = [(1, 0), (2, 9.9), (3, 10.2), (4, 20)]  # the middle session runs from 9.9 to 10.2
    split = split_temporal(histories_of(long, [(5, 0), (6, 10), (7, 30)]), 1 / 6, 2 / 6)
    assert split.cuts == (10 * HOUR, 20 * HOUR)  # sorted starts: 0 0 9.9 10 20 30
    assert rows_of(split.train) == {0: [1], 1: [5]}
    assert rows_of(split.test.histories) == {0: [1, 2, 3], 1: [5, 6]}


def test_empty_parts_are_refused():
    with pytest.raises(ValueError, match="leaves no user in the training part"):
        split_temporal(histories_of([(1, 0), (2, 1)]), 0.4, 0.4)
    with pytest.raises(ValueError, match="leaves no user in the validation part"):
        split_temporal(histories_of([(1, 0), (2, 3), (3, 4)], [(4, 1)], [(5, 2)]), 0.2, 0.2, min_sessions=4)
    with pytest.raises(ValueError, match=r"in the test part \(cuts at 7200 and 10800 seconds, shares 0.25 and 0.25\)"):
        split_temporal(histories_of([(1, 0), (2, 1), (3, 2)], [(4, 3)]), 0.25, 0.25)


@pytest.mark.parametrize("seed", range(5))
def test_nothing_after_a_query_is_in_its_history(seed):
    split_both = random_splits(seed)
    for split in split_both:
        for queries in (split.validation, split.test):
            for history, target, asked in zip(
                queries.histories, queries.targets, queries.histories.query_times, strict=True
            ):
                assert target.times.min() == asked
                assert len(history) > 0
                assert history.times.max() <= asked
                assert len(set(target.sessions)) == 1
                assert history.sessions.max() < target.sessions.min()


@pytest.mark.parametrize("seed", range(5))
def test_training_never_reaches_into_a_period_or_a_held_out_session(seed):
    last, temporal = random_splits(seed)
    assert temporal.train.times.max() < temporal.cuts[0] <= temporal.validation.histories.query_times.min()
    assert (
        temporal.validation.histories.query_times.max() < temporal.cuts[1] <= temporal.test.histories.query_times.min()
    )
    held_out = dict(zip(last.validation.targets.users.tolist(), last.validation.targets, strict=True))
    for user, history in zip(last.train.users.tolist(), last.train, strict=True):
        if user in held_out:
            assert history.sessions.max() < held_out[user].sessions.min()


def random_splits(seed):
    generator = np.random.default_rng(seed)
    users = []
    for _ in range(30):
        times = np.sort(generator.integers(0, 40 * HOUR, generator.integers(1, 25)))
        users.append([(int(generator.integers(10)), "view", int(time)) for time in times])
    whole = as_histories(users, list(range(10)), "view", gap_minutes=60)
    return split_last_session(whole), split_temporal(whole, 0.15, 0.15)


SHOP = [
    [("a", "view", 0), ("b", "view", 60), ("a", "buy", 120), ("c", "view", 9000)],
    [("b", "buy", 0)],  # nothing before it
    [("c", "view", 0), ("b", "view", 5)],  # never bought
    [],
    [("a", "view", 7), ("a", "buy", 7)],  # in the same second
]


def shop():
    return as_histories(SHOP, ["a", "b", "c"], "view,buy")


def test_leave_one_out_asks_for_the_last_interaction_after_all_before_it():
    queries = leave_one_out(shop())
    assert rows_of(queries.histories) == {0: [0, 1, 0], 2: [2], 4: [0]}
    assert rows_of(queries.targets) == {0: [2], 2: [1], 4: [0]}
    assert queries.histories.sessions[queries.histories.offsets[1] :].tolist() == [0, 0]  # that of the target


def test_leave_one_out_of_a_behavior_asks_for_the_last_of_its_kind():
    queries = leave_one_out(shop(), "buy")
    assert rows_of(queries.histories) == {0: [0, 1], 4: [0]}
    assert rows_of(queries.targets) == {0: [0], 4: [0]}
    assert queries.targets.behaviors.tolist() == [1, 1]
    with pytest.raises(ValueError, match="like"):
        leave_one_out(shop(), "like")


def test_leave_one_out_asks_when_all_before_the_target_is_known():
    queries = leave_one_out(shop())
    assert queries.histories.query_times.tolist() == [9000, 5, 8]  # the last, of one second, a second later
    assert asked_at(queries.histories).num_later == 0
    without_times = as_histories([[("a", "view"), ("b", "view")]], ["a", "b"], "view")
    assert leave_one_out(without_times).histories.query_times.tolist() == [0]


def test_leave_one_out_of_nobody_is_empty():
    assert len(leave_one_out(shop().select([1, 3]))) == 0
