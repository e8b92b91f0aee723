import numpy as np
import pytest

from genrec.evaluation import EvaluationReport
from genrec.evaluation.comparison import Comparison, compare
from genrec.evaluation.records import Records

NUM_USERS = 100


def report(values, users=None, model="m", behaviors=None, protocol="last-session"):
    values = np.asarray(values, dtype=float)
    users = np.arange(len(values)) if users is None else np.asarray(users)
    behaviors = np.array(["view"] * len(values) if behaviors is None else behaviors, dtype=object)
    return EvaluationReport([], [Records(model, protocol, users, behaviors, {"ndcg@10": values})])


def noise(seed, size=NUM_USERS):
    return np.random.default_rng(seed).random(size)


def test_means_and_difference_by_hand():
    result = compare(report([0.5, 0.25, 0.0]), report([0.25, 0.25, 0.25]))
    assert (result.first, result.second, result.difference) == pytest.approx((0.25, 0.25, 0.0))
    assert (result.records, result.num_seeds) == (3, 1)


def test_a_constant_gain_is_certain():
    values = noise(0)
    result = compare(report(values + 0.125), report(values), num_bootstrap=500)
    assert (result.difference, result.low, result.high) == pytest.approx((0.125, 0.125, 0.125))
    assert result.p == pytest.approx(2 / 501)
    assert result.relative == pytest.approx(0.125 / values.mean())


def test_a_run_against_itself_shows_nothing():
    result = compare(report(noise(0)), report(noise(0)))
    assert (result.difference, result.low, result.high, result.p) == (0, 0, 0, 1)


def test_pairing_sees_what_the_separate_intervals_hide():
    """A small steady gain under large differences between users."""
    users = noise(0)
    gain = 0.02 + 0.02 * noise(1)
    result = compare(report(users + gain), report(users))
    assert 0.02 < result.low < result.difference < result.high < 0.04


def test_swapping_the_runs_flips_the_sign():
    forth = compare(report(noise(0)), report(noise(1)), num_bootstrap=400)
    back = compare(report(noise(1)), report(noise(0)), num_bootstrap=400)
    assert (back.difference, back.low, back.high) == pytest.approx((-forth.difference, -forth.high, -forth.low))
    assert back.p == forth.p


def test_the_interval_is_that_of_the_paired_differences():
    first, second = noise(0, 1000), noise(1, 1000)
    result = compare(report(first), report(second))
    standard_error = (first - second).std() / np.sqrt(1000)
    assert result.high - result.low == pytest.approx(2 * 1.96 * standard_error, rel=0.1)


def test_p_is_uniform_when_nothing_differs():
    p_values = [
        compare(report(noise(seed, 60)), report(noise(seed + 1000, 60)), num_bootstrap=200).p for seed in range(200)
    ]
    assert 0.01 <= np.mean(np.array(p_values) < 0.05) <= 0.11
    assert 0.4 < np.mean(p_values) < 0.6


def test_records_are_matched_by_user_and_behavior_not_by_position():
    users, behaviors = ["u", "v", "u", "u"], ["view", "view", "buy", "view"]
    first = report([1, 2, 3, 4], users, behaviors=behaviors)
    order = [2, 1, 0, 3]
    second = report([3, 2, 1, 4], [users[i] for i in order], behaviors=[behaviors[i] for i in order])
    assert compare(first, second).high == 0
    assert compare(first, second, behavior="buy").records == 1


def test_a_user_asked_twice_is_matched_in_order():
    first = report([1, 2, 3], ["u", "u", "v"])
    second = report([3, 1, 2], ["v", "u", "u"])
    assert (compare(first, second).low, compare(first, second).high) == (0, 0)


def test_different_records_are_refused():
    with pytest.raises(ValueError, match="was asked 3 records and 'm' 2, and they are not of the same users"):
        compare(report([1, 2]), report([1, 2, 3]))
    with pytest.raises(ValueError, match="not of the same users"):
        compare(report([1, 2], ["u", "v"]), report([1, 2], ["u", "w"]))


def test_a_missing_metric_is_refused():
    with pytest.raises(ValueError, match=r"'m' has no records of 'hit@1'\. It has: ndcg@10"):
        compare(report([1]), report([1]), "hit@1")


def test_nothing_to_compare_is_refused():
    with pytest.raises(ValueError, match="No record of 'buy' counts for 'ndcg@10'"):
        compare(report([1]), report([1]), behavior="buy")


def test_models_of_one_report_can_be_compared():
    both = report([1, 1], model="a").merge(report([0, 1], model="b"))
    assert compare(both, both, models=("a", "b")).difference == 0.5


def test_records_that_do_not_count_are_left_out():
    result = compare(report([1, np.nan, 0.5]), report([0, np.nan, 0.5]))
    assert (result.difference, result.records) == (0.5, 2)


def test_several_seeds_are_averaged():
    base = noise(0)
    firsts = [report(base + gain) for gain in (0.1, 0.2, 0.3)]
    result = compare(firsts, [report(base)] * 3)
    assert result.difference == pytest.approx(0.2)
    assert result.num_seeds == 3


def test_the_interval_covers_how_training_fell_out():
    """With every user alike, all the spread comes from the seeds: Student's t of two degrees of freedom."""
    result = compare([report([g] * 50) for g in (0.1, 0.2, 0.3)], [report([0.0] * 50)] * 3, num_bootstrap=50_000)
    margin = 4.303 * 0.1 / np.sqrt(3)  # the 97.5th percentile, times the standard error of the mean
    assert (result.low, result.high) == pytest.approx((0.2 - margin, 0.2 + margin), abs=0.02)
    assert result.p == pytest.approx(0.0742, abs=0.005)  # of t = 0.2 / (0.1 / sqrt(3)) = 3.464


def test_two_seeds_of_one_sign_are_not_certain():
    """Drawn with replacement, two seeds have a difference above zero in every resample."""
    result = compare([report([g] * 50) for g in (0.001, 0.02)], [report([0.0] * 50)] * 2)
    assert result.low < 0 < result.high
    assert result.p > 0.3


@pytest.mark.parametrize("num_seeds", [2, 3, 5])
def test_equal_models_are_seldom_told_apart(num_seeds):
    """Training moves a difference by 0.004, and who was asked by 0.05 / sqrt(800) as with 800 users of 0.05."""
    draw = np.random.default_rng(num_seeds)
    num_users, num_repeats = 50, 300
    p_values = []
    for _ in range(num_repeats):
        users = 0.05 * np.sqrt(num_users / 800) * draw.standard_normal(num_users)
        firsts = [report(users + gain) for gain in 0.004 * draw.standard_normal(num_seeds)]
        p_values.append(compare(firsts, [report(np.zeros(num_users))] * num_seeds, num_bootstrap=400).p)
    assert np.mean(np.array(p_values) < 0.05) <= 0.07


def test_unpaired_seeds_are_refused():
    with pytest.raises(ValueError, match="compared in pairs, but there are 2 and 1"):
        compare([report([1]), report([1])], report([1]))
    with pytest.raises(ValueError, match="there are 0 and 0"):
        compare([], [])


def test_relative_to_zero():
    def result(difference):
        return Comparison(difference, 0, 0, 1, difference, 0.0, 1, 1)

    assert result(0.5).relative == np.inf
    assert result(0.0).relative == 0
