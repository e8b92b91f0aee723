"""Behavior dropping: copies of a training history with a share of its weaker behaviors left out.

GAMER, section 3.3: for the ratio `r`, of each behavior below the top level a random share `r / (level + 1)` of the
user's interactions goes, rounded down; the order of what stays is kept. The K copies take the ratios `1/K` to `1`, so
that the last one holds nothing of the lowest level; for samples of one interaction each the release takes `1/(K+1)` to
`K/(K+1)` instead, so that every copy still has targets of all levels. Sessions and times are kept as they are: a
session is asked about when it began, even if a copy lacks its first interaction.

Unlike the release, whose draws depend on the users before, a user's draws here depend on the seed and the user's id.
"""

import hashlib
from dataclasses import replace

import numpy as np

from genrec.data.histories import Histories

MIN_INTERACTIONS = 2  # a copy with fewer teaches nothing
ROUNDING = 1e-9  # 49 * (1 / 49) is 1, whatever floating point says


def drop_behaviors(histories: Histories, copies: int, seed: int, reaches_one: bool = True) -> Histories:
    """Return the histories and, behind them, up to `copies` thinned copies of each.

    Args:
        histories: Training histories, `[users]` rows.
        copies: K; 0 returns the histories alone.
        seed: Decides which interactions go. The same user loses the same ones, whoever else is in the batch.
        reaches_one: Whether copy k takes the ratio `k/K`, else `k/(K+1)`, which leaves some of every level.

    Returns:
        The originals in their order, then all first copies, then all second copies, and so on. Copies with fewer than
        two interactions are left out. A ladder of one level lets nothing be dropped: the copies equal the originals.

    Raises:
        ValueError: If `copies` is negative.

    Example:
        >>> from genrec.data.histories import as_histories
        >>> one = as_histories([[("a", "view"), ("a", "buy"), ("b", "view"), ("b", "buy")]], ["a", "b"], "view,buy")
        >>> [copy.behaviors.tolist() for copy in drop_behaviors(one, copies=1, seed=0)]
        [[0, 1, 0, 1], [1, 1]]
    """
    if copies < 0:
        raise ValueError(f"`copies` must be at least 0, got {copies}.")
    histories = histories.with_session_times()  # a session begins when it began, whatever is dropped of it
    parts, whole = [histories], copies if reaches_one else copies + 1
    for number in range(1, copies + 1):
        thinned = histories.keep(~_dropped(histories, number / whole, seed, number))
        parts.append(thinned.select(thinned.lengths >= MIN_INTERACTIONS))
    return _concatenate(parts)


def drop_share(histories: Histories, ratio: float, seed: int) -> Histories:
    """Thin every history by the same ratio, row for row: how well does a model do when weak signals are missing?

    Args:
        histories: `[users]` rows.
        ratio: Share of the lowest level that goes; half of it of the second level, a third of the third, and so on.
        seed: Decides which interactions go.

    Returns:
        As many rows as `histories`. A history that would lose everything stays whole (GAMER, appendix B, as released).

    Raises:
        ValueError: If `ratio` is not between 0 and 1.

    Example:
        >>> from genrec.data.histories import as_histories
        >>> two = as_histories([[("a", "view"), ("a", "buy")], [("b", "view")]], ["a", "b"], "view,buy")
        >>> [history.behaviors.tolist() for history in drop_share(two, ratio=1.0, seed=0)]
        [[1], [0]]
    """
    if not 0 <= ratio <= 1:
        raise ValueError(f"`ratio` must be between 0 and 1, got {ratio}.")
    dropped = _dropped(histories, ratio, seed, copy=0)
    survivors = np.bincount(histories.rows[~dropped], minlength=len(histories))
    return histories.keep(~dropped | (survivors == 0)[histories.rows])


def _dropped(histories: Histories, ratio: float, seed: int, copy: int) -> np.ndarray:
    """Choose `floor(count * ratio / (level + 1))` interactions of each behavior below the top, `[events]` bool."""
    levels, num_behaviors = np.array(histories.ladder.levels), len(histories.ladder.names)
    groups = histories.rows * num_behaviors + histories.behaviors
    shares = np.where(levels < levels[-1], ratio / (levels + 1), 0.0)
    counts = np.bincount(groups, minlength=len(histories) * num_behaviors)
    quotas = np.floor(counts * np.tile(shares, len(histories)) + ROUNDING).astype(np.int64)

    order = np.lexsort((_lots(histories, seed, copy), groups))
    first = np.cumsum(counts) - counts
    dropped = np.empty(len(groups), dtype=bool)
    dropped[order] = np.arange(len(groups)) - first[groups[order]] < quotas[groups[order]]
    return dropped


def _lots(histories: Histories, seed: int, copy: int) -> np.ndarray:
    """Give every interaction a random number that depends on seed, copy, user id and place in the history only."""
    start = _scramble(_scramble(np.array([seed], dtype=np.int64).astype(np.uint64)) + np.uint64(copy))
    users = _scramble(_user_numbers(histories.users) + start)
    places = np.arange(len(histories.items)) - histories.offsets[:-1][histories.rows]
    return _scramble(users[histories.rows] + places.astype(np.uint64))


def _user_numbers(users: np.ndarray) -> np.ndarray:
    """Turn ids of any type into integers, the same in every process, `[users]` uint64."""
    if users.dtype.kind in "iu":
        return users.astype(np.uint64)
    digests = (hashlib.blake2b(str(user).encode(), digest_size=8).digest() for user in users)
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def _scramble(numbers: np.ndarray) -> np.ndarray:
    """Mix the bits of each integer (SplitMix64; Steele, Lea and Flood, OOPSLA 2014), `[...]` uint64."""
    mixed = numbers + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _concatenate(parts: list[Histories]) -> Histories:
    """Stack histories over the same catalog and ladder, rows of the first part first."""
    lengths = np.concatenate([part.lengths for part in parts])
    times = [part.query_times for part in parts if part.query_times is not None]
    return replace(
        parts[0],
        items=np.concatenate([part.items for part in parts]),
        behaviors=np.concatenate([part.behaviors for part in parts]),
        sessions=np.concatenate([part.sessions for part in parts]),
        times=np.concatenate([part.times for part in parts]),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        users=np.concatenate([part.users for part in parts]),
        query_times=np.concatenate(times) if times else None,
        session_times=np.concatenate([part.session_starts for part in parts]),
    )
