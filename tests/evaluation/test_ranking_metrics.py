"""AUROC and GAUC against arithmetic by hand and a count over all pairs."""

import numpy as np
import pytest

from genrec.evaluation.ranking_metrics import auroc, gauc, num_telling_users


def by_pairs(labels: np.ndarray, scores: np.ndarray) -> float:
    """Count the pairs of a conversion and an exposure that are won, ties as one half."""
    wins = [
        1.0 if high > low else 0.5 if high == low else 0.0
        for high in scores[labels == 1]
        for low in scores[labels == 0]
    ]
    return sum(wins) / len(wins)


def test_auroc_by_hand():
    labels = np.array([1, 0, 1, 0, 0])
    assert auroc(labels, np.array([0.9, 0.8, 0.7, 0.6, 0.1])) == pytest.approx(5 / 6)  # 0.7 loses to 0.8 only
    assert auroc(labels, np.array([3, 1, 2, 0, -1])) == 1
    assert auroc(labels, np.array([0, 1, 0, 1, 2])) == 0
    assert auroc(labels, np.zeros(5)) == 0.5
    assert auroc(labels, np.array([1, 1, 0, 0, 0])) == pytest.approx((0.5 + 1 + 1 + 0 + 0.5 + 0.5) / 6)


def test_auroc_agrees_with_all_pairs():
    generator = np.random.default_rng(0)
    for _ in range(20):
        labels = np.append(generator.integers(2, size=30), [0, 1])
        scores = generator.integers(6, size=32) / 5  # many ties
        assert auroc(labels, scores) == pytest.approx(by_pairs(labels, scores))


def test_only_the_order_of_scores_counts():
    generator = np.random.default_rng(1)
    labels, scores = generator.integers(2, size=50), generator.normal(size=50)
    assert auroc(labels, np.exp(3 * scores)) == pytest.approx(auroc(labels, scores))
    assert auroc(labels, -scores) == pytest.approx(1 - auroc(labels, scores))


def test_gauc_by_hand():
    users = np.array(["b", "a", "b", "a", "b", "c", "a", "b"])
    labels = np.array([1, 1, 0, 0, 0, 1, 0, 1])
    scores = np.array([0.9, 0.5, 0.2, 0.5, 0.7, 0.1, 0.3, 0.6])
    of_a = (0.5 + 1) / 2  # one tie, one win
    of_b = (1 + 1 + 1 + 0) / 4  # 0.6 loses to 0.7
    assert gauc(labels, scores, users) == pytest.approx((of_a + of_b) / 2)  # c has conversions only
    assert gauc(labels, scores, users, is_weighted=True) == pytest.approx((3 * of_a + 4 * of_b) / 7)
    assert num_telling_users(labels, users) == 2


def test_gauc_is_the_mean_of_each_users_auroc():
    generator = np.random.default_rng(2)
    users, labels = generator.integers(12, size=200), generator.integers(2, size=200)
    scores = generator.integers(8, size=200).astype(float)
    areas = [by_pairs(labels[users == user], scores[users == user]) for user in range(12)]
    assert gauc(labels, scores, users) == pytest.approx(np.mean(areas))


def test_knowing_who_buys_much_helps_auroc_and_not_gauc():
    users, labels = np.repeat([0, 1], 4), np.array([1, 1, 1, 0, 1, 0, 0, 0])
    of_user = np.repeat([0.75, 0.25], 4)
    assert auroc(labels, of_user) == pytest.approx(0.75)
    assert gauc(labels, of_user, users) == 0.5


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([1, 1], [0.1, 0.2], "AUROC needs conversions and exposures, but all 2 labels are the same"),
        ([1, -100], [0.1, 0.2], r"`labels` must be 0 or 1, got \[-100, 1\]. Leave padding out"),
        ([1, 0], [0.1, np.nan], "1 are NaN"),
        ([1, 0], [0.1], r"two rows of one length, got \(2,\) and \(1,\)"),
    ],
)
def test_bad_input_is_refused(labels, scores, message):
    with pytest.raises(ValueError, match=message):
        auroc(np.array(labels), np.array(scores))


def test_gauc_needs_a_user_with_both_labels():
    with pytest.raises(ValueError, match="None of the 2 users has both"):
        gauc(np.array([1, 0]), np.array([0.1, 0.2]), np.array([0, 1]))
    with pytest.raises(ValueError, match="`users` must have one value per label"):
        gauc(np.array([1, 0]), np.array([0.1, 0.2]), np.array([0]))
