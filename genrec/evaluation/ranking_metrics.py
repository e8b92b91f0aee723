"""How well scores of shown items tell conversions from mere exposures: AUROC over all of them, and per user (GAUC).

AUROC is the probability that a conversion drawn at random scores higher than an exposure drawn at random, where a tie
counts one half (Hanley and McNeil, Radiology 1982). GAUC asks the same within each user and averages (Zhu et al.,
*Optimized Cost per Click in Taobao Display Advertising*, KDD 2017): knowing who buys much does not help there.
"""

import numpy as np


def auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the area under the ROC curve.

    Args:
        labels: 1 (or True) for conversions, 0 for exposures `[impressions]`.
        scores: Any numbers, higher for what converts more likely `[impressions]`.

    Raises:
        ValueError: If the labels are not 0 and 1, one of them is missing, or a score is no number.

    >>> auroc(np.array([0, 1, 0, 1]), np.array([0.1, 0.4, 0.4, 0.8]))  # of 4 pairs 3 are won and 1 is tied
    0.875
    """
    labels, scores = _checked(labels, scores)
    if labels.all() or not labels.any():
        raise ValueError(
            f"AUROC needs conversions and exposures, but all {len(labels)} labels are the same. Score more impressions."
        )
    everybody = np.zeros(len(labels), dtype=np.int64)
    return float(_areas(labels, scores, everybody)[0])


def gauc(labels: np.ndarray, scores: np.ndarray, users: np.ndarray, is_weighted: bool = False) -> float:
    """Return the mean AUROC of the users who have both labels; the others tell nothing and are left out.

    Args:
        labels: 1 (or True) for conversions, 0 for exposures `[impressions]`.
        scores: Any numbers, higher for what converts more likely `[impressions]`.
        users: The user of each impression `[impressions]`.
        is_weighted: Whether a user counts by their impressions instead of once.

    Raises:
        ValueError: If the labels are not 0 and 1, no user has both, or a score is no number.

    >>> labels, scores = np.array([1, 0, 1, 0, 0, 1]), np.array([0.9, 0.1, 0.2, 0.3, 0.4, 0.5])
    >>> users = np.array([7, 7, 8, 8, 8, 9])  # all pairs of 7 are won, all of 8 lost, and 9 has none
    >>> gauc(labels, scores, users), gauc(labels, scores, users, is_weighted=True)
    (0.5, 0.4)
    """
    labels, scores = _checked(labels, scores)
    if np.shape(users) != labels.shape:
        raise ValueError(f"`users` must have one value per label, {labels.shape}, got {np.shape(users)}.")
    _, numbers = np.unique(users, return_inverse=True)
    areas = _areas(labels, scores, numbers)
    tells = ~np.isnan(areas)
    if not tells.any():
        raise ValueError(f"None of the {len(areas)} users has both a conversion and an exposure. Score more sessions.")
    weights = np.bincount(numbers)[tells] if is_weighted else None
    return float(np.average(areas[tells], weights=weights))


def num_telling_users(labels: np.ndarray, users: np.ndarray) -> int:
    """Return how many users have both labels, and so count in `gauc`.

    >>> num_telling_users(np.array([1, 0, 1]), np.array([5, 5, 6]))
    1
    """
    _, numbers = np.unique(users, return_inverse=True)
    converted = np.bincount(numbers, weights=labels)
    return int(((converted > 0) & (converted < np.bincount(numbers))).sum())


def _checked(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise ValueError(
            f"`labels` and `scores` must be two rows of one length, got {labels.shape} and {scores.shape}."
        )
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(f"`labels` must be 0 or 1, got {np.unique(labels)[:5].tolist()}. Leave padding out.")
    if np.isnan(scores).any():
        raise ValueError(f"`scores` must be numbers, but {int(np.isnan(scores).sum())} are NaN. Did training diverge?")
    return labels.astype(bool), scores


def _areas(labels: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the AUROC within each group, NaN where a label is missing; groups count from 0 `[groups]`.

    The conversions' ranks, counted from 1 and shared by ties, add up to those among themselves plus the pairs they win.
    """
    order = np.lexsort((scores, groups))
    labels, scores, groups = labels[order], scores[order], groups[order]
    sizes = np.bincount(groups)
    ranks = _mid_ranks(scores, groups) - (np.cumsum(sizes) - sizes)[groups]
    positives = np.bincount(groups, weights=labels)
    won = np.bincount(groups, weights=ranks * labels) - positives * (positives + 1) / 2
    pairs = positives * (sizes - positives)
    return np.divide(won, pairs, out=np.full(len(sizes), np.nan), where=pairs > 0)


def _mid_ranks(scores: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return ranks from 1 of sorted scores over all groups; equal ones of a group share the mean of theirs."""
    starts = np.ones(len(scores), dtype=bool)
    starts[1:] = (scores[1:] != scores[:-1]) | (groups[1:] != groups[:-1])
    firsts = np.flatnonzero(starts)
    counts = np.diff(np.append(firsts, len(scores)))
    return np.repeat(firsts + (counts + 1) / 2, counts)
