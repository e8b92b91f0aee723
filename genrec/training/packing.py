"""Which samples share a row, and which rows a micro-batch: arithmetic on lengths alone, before any token is made.

A row of one short history is mostly padding. *Packing* puts several histories into one row, item after item, and the
model keeps them apart (`segment_ids`). A *micro-batch* is what passes through the model at once; a batch of any size is
cut into micro-batches of nearly equal size under a budget of tokens, and their gradients add up.
"""

from typing import NamedTuple

import numpy as np


class Rows(NamedTuple):
    """Where the samples of a batch lie.

    Args:
        rows: The row of each sample `[samples]`.
        starts: The item of that row at which it begins `[samples]`.
        lengths: Items in each row `[rows]`.
    """

    rows: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray


def one_per_row(lengths: np.ndarray) -> Rows:
    """Return a row per sample."""
    return Rows(np.arange(len(lengths)), np.zeros(len(lengths), dtype=np.int64), np.asarray(lengths))


def pack_rows(lengths: np.ndarray, capacity: int) -> Rows:
    """Pack samples into few rows: the longest first, each into the fullest row that has room (best fit decreasing).

    Args:
        lengths: Items per sample `[samples]`.
        capacity: Items that a row holds.

    Raises:
        ValueError: If a sample is longer than a row.

    Example:
        >>> packed = pack_rows(np.array([2, 5, 3, 4, 1]), capacity=5)
        >>> packed.rows.tolist(), packed.starts.tolist(), packed.lengths.tolist()
        ([2, 0, 2, 1, 1], [3, 0, 0, 0, 4], [5, 5, 5])
    """
    if len(lengths) and lengths.max() > capacity:
        raise ValueError(f"A row of {capacity} items cannot hold a sample of {lengths.max()}. Raise `capacity`.")
    rows, starts = np.zeros(len(lengths), dtype=np.int64), np.zeros(len(lengths), dtype=np.int64)
    fills: list[int] = []
    rows_with_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms = 0  # bit r is set if some row has room for exactly r more items
    for sample in np.argsort(-np.asarray(lengths), kind="stable").tolist():
        length = int(lengths[sample])
        fitting = rooms >> length
        room = length + (fitting & -fitting).bit_length() - 1 if fitting else capacity
        if not fitting:
            fills.append(0)
            rows_with_room[room].append(len(fills) - 1)
        row = rows_with_room[room].pop()
        rows[sample], starts[sample] = row, fills[row]
        fills[row] += length
        rows_with_room[room - length].append(row)
        rooms &= ~(1 << room) if not rows_with_room[room] else -1
        rooms |= 1 << (room - length) if room > length else 0
    return Rows(rows, starts, np.array(fills, dtype=np.int64))


def cut_rows(lengths: np.ndarray, max_items: int) -> list[np.ndarray]:
    """Cut rows into micro-batches of at most `max_items` items, padding included, and of nearly equal size.

    Rows of like length come together, since each micro-batch is padded to its longest row. There are as few
    micro-batches as going from long rows to short ones gives, and then the smallest budget that gives so few decides.

    Args:
        lengths: Items in each row `[rows]`.
        max_items: Items per micro-batch.

    Returns:
        Row numbers, longest first, one array per micro-batch.

    Raises:
        ValueError: If a row alone is over the budget.

    Example:
        >>> [part.tolist() for part in cut_rows(np.array([4, 2, 4, 2, 3]), max_items=9)]
        [[0, 2], [4, 1, 3]]
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    falling = np.asarray(lengths)[order]
    if falling[0] > max_items:
        raise ValueError(f"A row of {falling[0]} items is over the budget of {max_items}. Raise the budget.")
    fewest = len(_starts(falling, max_items))
    low, high = int(falling[0]), max_items
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(_starts(falling, middle)) <= fewest else (middle + 1, high)
    return np.split(order, _starts(falling, low)[1:])


def _starts(falling: np.ndarray, max_items: int) -> list[int]:
    """Return where micro-batches begin if each takes as many of the rows as the budget allows."""
    starts, start = [], 0
    while start < len(falling):
        starts.append(start)
        start += int(max_items // falling[start])
    return starts
