import numpy as np
import pytest

from genrec.evaluation import bootstrap
from genrec.evaluation.bootstrap import bootstrap_means, percentile_interval, sums_by_user, user_resamples


def test_resamples_draw_as_many_users_as_there_are():
    draws = np.concatenate(list(user_resamples(num_users=7, num_bootstrap=50, seed=0)))
    assert draws.shape == (50, 7)
    assert (draws.sum(axis=1) == 7).all()
    assert draws.std() > 0.5  # with replacement: the variance of a count is 1 - 1/7


def test_chunks_change_no_draw(monkeypatch):
    whole = np.concatenate(list(user_resamples(num_users=7, num_bootstrap=9, seed=2)))
    monkeypatch.setattr(bootstrap, "WEIGHTS_PER_CHUNK", 14)
    assert (np.concatenate(list(user_resamples(num_users=7, num_bootstrap=9, seed=2))) == whole).all()


def test_figures_that_count_the_same_records_share_nothing_but_their_counts():
    """Each figure alone gives what it gives beside others."""
    rng = np.random.default_rng(4)
    sums, counts = rng.random((30, 4)), np.stack([np.ones(30), rng.integers(0, 3, 30)] * 2, axis=1).astype(float)
    together = bootstrap_means(sums, counts, num_bootstrap=8, seed=1)
    for figure in range(4):
        alone = bootstrap_means(sums[:, [figure]], counts[:, [figure]], num_bootstrap=8, seed=1)[:, 0]
        assert together[:, figure] == pytest.approx(alone)


def test_chunks_are_bounded_and_complete(monkeypatch):
    monkeypatch.setattr(bootstrap, "WEIGHTS_PER_CHUNK", 21)
    sizes = [draws.shape for draws in user_resamples(num_users=7, num_bootstrap=8, seed=0)]
    assert sizes == [(3, 7), (3, 7), (2, 7)]


def test_resamples_repeat_with_the_seed():
    first, second, other = (next(user_resamples(9, 5, seed)) for seed in (1, 1, 2))
    assert (first == second).all()
    assert (first != other).any()


def test_no_resample_is_refused():
    with pytest.raises(ValueError, match="`num_bootstrap`.* must be at least 1, got 0"):
        next(user_resamples(3, 0, seed=0))


def test_sums_by_user_leave_nan_out():
    values = np.array([[1.0, np.nan], [2.0, 5.0], [4.0, 7.0]])
    sums, counts = sums_by_user(values, users=np.array([0, 2, 0]), num_users=3)
    assert sums.tolist() == [[5, 7], [0, 0], [2, 5]]
    assert counts.tolist() == [[2, 1], [0, 0], [1, 1]]


def test_a_resample_mean_is_the_mean_over_the_records_of_the_drawn_users():
    rng = np.random.default_rng(0)
    users, values = rng.integers(6, size=40), rng.random(40)
    sums, counts = sums_by_user(values[:, None], users, num_users=6)
    means = bootstrap_means(sums, counts, num_bootstrap=20, seed=3)[:, 0]
    draws = np.concatenate(list(user_resamples(6, 20, seed=3))).astype(int)
    for mean, times_drawn in zip(means, draws, strict=True):
        records = np.concatenate([np.tile(values[users == user], n) for user, n in enumerate(times_drawn)])
        assert mean == pytest.approx(records.mean())


def test_the_records_of_a_user_move_together():
    """Ten copies of each record make no figure more certain, as they would if records were drawn one by one."""
    rng = np.random.default_rng(0)
    values, users = rng.random(200), np.arange(200)
    once = bootstrap_means(*sums_by_user(values[:, None], users, 200), num_bootstrap=300, seed=0)
    tenfold = bootstrap_means(*sums_by_user(np.tile(values, 10)[:, None], np.tile(users, 10), 200), 300, seed=0)
    assert np.allclose(once, tenfold)


def test_the_interval_agrees_with_the_normal_one_of_independent_users():
    values = np.random.default_rng(0).random(2000)
    means = bootstrap_means(*sums_by_user(values[:, None], np.arange(2000), 2000), num_bootstrap=1000, seed=0)
    low, high = percentile_interval(means, confidence=0.95)
    standard_error = values.std() / np.sqrt(2000)
    assert high[0] - low[0] == pytest.approx(2 * 1.96 * standard_error, rel=0.1)
    assert low[0] < values.mean() < high[0]


def test_a_figure_without_a_drawn_record_is_nan():
    means = bootstrap_means(np.zeros((2, 1)), np.zeros((2, 1)), num_bootstrap=3, seed=0)
    assert np.isnan(means).all()
    assert np.isnan(percentile_interval(means, 0.95)).all()


def test_percentiles_cut_equal_tails():
    low, high = percentile_interval(np.arange(201.0)[:, None], confidence=0.8)
    assert (low[0], high[0]) == pytest.approx((20, 180))
