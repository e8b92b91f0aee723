"""Events grouped by item, and searched by time inside each group: what counts before a moment are made of."""

import numpy as np


def grouped(groups: np.ndarray, times: np.ndarray, num_groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an order by group and then time, and where each group begins in it.

    Args:
        groups: The group of each event, `[events]`.
        times: Seconds, `[events]`.
        num_groups: How many groups there are.

    Returns:
        The order `[events]`, in which equal ones stay as they are, and the beginnings `[num_groups + 1]`.

    Example:
        >>> order, starts = grouped(np.array([1, 0, 1]), np.array([30, 20, 10]), num_groups=3)
        >>> order.tolist(), starts.tolist()
        ([1, 2, 0], [0, 1, 3, 3])
    """
    order = np.lexsort((times, groups))
    starts = np.zeros(num_groups + 1, dtype=np.int64)
    np.cumsum(np.bincount(groups, minlength=num_groups), out=starts[1:])
    return order, starts


def stable_order(keys: np.ndarray) -> np.ndarray:
    """Return the order that sorts whole numbers from 0 on, equal ones as they are: `argsort(kind="stable")`, faster.

    Each key is packed into one number with its place, because numpy sorts numbers by vector instructions where the
    processor has them, and argument lists one by one.

    Args:
        keys: `[keys]`, none below 0.

    Returns:
        Places in `keys`, `[keys]` int64.

    Example:
        >>> stable_order(np.array([7, 0, 7, 3])).tolist()
        [1, 3, 0, 2]
    """
    bits = len(keys).bit_length()
    if int(keys.max(initial=0)).bit_length() + bits > 63:
        return np.argsort(keys, kind="stable")
    packed = keys.astype(np.int64)
    packed <<= bits
    packed |= np.arange(len(keys))
    packed.sort()
    packed &= (1 << bits) - 1
    return packed


def first_at_or_after(times: np.ndarray, starts: np.ndarray, ends: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """Return in each range of events the first one at or after a moment, the range's end if there is none.

    A binary search of all ranges at once.

    Args:
        times: Seconds, never falling within a range, `[events]`.
        starts: The first event of each range, `[...]`.
        ends: The event after its last, `[...]`.
        moments: The moments, seconds, `[...]`.

    Example:
        >>> times = np.array([10, 20, 20, 5])
        >>> first_at_or_after(times, np.array([0, 0, 3]), np.array([3, 3, 4]), np.array([20, 21, 5])).tolist()
        [1, 3, 3]
    """
    low, high = starts.copy(), ends.copy()
    if len(times) == 0:
        return low
    for _ in range(int((ends - starts).max(initial=0)).bit_length()):
        middle = (low + high) // 2
        is_open = low < high
        is_before = is_open & (times[np.minimum(middle, len(times) - 1)] < moments)
        low, high = np.where(is_before, middle + 1, low), np.where(is_open & ~is_before, middle, high)
    return low
