"""How much of what is asked about did the user meet a moment ago? GAMER, section 3.2 and figure 2.

Where the answer is "most of it", a rule that repeats the last items seems excellent, and a protocol rewards memory of
the running session instead of knowledge of the user.
"""

import numpy as np

from genrec.data.histories import Histories, Queries
from genrec.evaluation.protocols import task_of

MAX_DEPTH = 20


def recent_target_shares(queries: Queries, behavior: str, max_depth: int = MAX_DEPTH) -> np.ndarray:
    """Return the share of targets among each user's last 1, 2, ... items, `[max_depth]`.

    Args:
        queries: What is asked.
        behavior: The asked behavior; a record's distinct items of it are the targets, each of which counts once.
        max_depth: Up to how many of the last items. Items are counted without repeats, the latest first: the share at
            n is what repeating the last n items would find.

    Raises:
        ValueError: If `max_depth` is below 1, the behavior is unknown, or nobody is asked for it.

    Example:
        >>> from genrec.data.histories import as_histories
        >>> past = as_histories([[("a", "view"), ("b", "view"), ("b", "view")]], ["a", "b", "c"], "view,buy")
        >>> session = as_histories([[("a", "buy"), ("c", "buy")]], ["a", "b", "c"], "view,buy")
        >>> recent_target_shares(Queries(past, session), "buy", max_depth=3).tolist()
        [0.0, 0.5, 0.5]
    """
    if max_depth < 1:
        raise ValueError(f"`max_depth` must be at least 1, got {max_depth}.")
    task = task_of(queries, behavior)
    if len(task) == 0:
        raise ValueError(f"None of the {len(queries)} queries has a target of {behavior!r}. Ask for another behavior.")
    pairs, depths = _depths(queries.histories.select(task.rows))
    targets = task.targets.pairs
    nearest = np.minimum(np.searchsorted(pairs, targets), max(len(pairs) - 1, 0))
    is_met = pairs[nearest] == targets if len(pairs) else np.zeros(len(targets), dtype=bool)
    found = np.bincount(depths[nearest[is_met]], minlength=max_depth + 1)[1 : max_depth + 1]
    return np.cumsum(found) / len(targets)


def _depths(histories: Histories) -> tuple[np.ndarray, np.ndarray]:
    """Return each user's distinct items as `row * num_items + item`, rising, and how many items back each was last met.

    The latest item has depth 1.
    """
    num_items = len(histories.item_ids)
    newest_first = (histories.rows * num_items + histories.items)[::-1]
    pairs, first = np.unique(newest_first, return_index=True)
    rows = pairs // num_items
    order = np.lexsort((first, rows))
    counts = np.bincount(rows, minlength=len(histories))
    depths = np.empty(len(pairs), dtype=np.int64)
    depths[order] = np.arange(len(pairs)) - (np.cumsum(counts) - counts)[rows[order]] + 1
    return pairs, depths
