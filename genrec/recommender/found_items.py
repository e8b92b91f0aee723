"""From the codes that a search found to each user's items."""

from typing import Any

import numpy as np

from genrec.generation.trie import DEAD_END, ItemTrie
from genrec.recommender.base import NO_ITEM
from genrec.recommender.scoring import tie_ranks

DEAD_SCORE = -1e8  # `generate` fills up with beams that score -1e9


def found_items(output: Any, trie: ItemTrie, allowed: np.ndarray | None, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the items and scores of each list, best first.

    Args:
        output: `sequences` `[lists * k, tokens]`, which end with an item's codes, and their `sequences_scores`.
        trie: The catalog's codes.
        allowed: Which items may come out: `[items]`, `[lists, items]` or None.
        k: Codes per list.

    Returns:
        Catalog rows `[lists, k]`, `NO_ITEM` behind the last one, and scores, `-inf` there.
    """
    scores = output.sequences_scores.float()
    nodes = trie.walk(output.sequences[:, -trie.num_levels :])
    found = trie.leaf_items(nodes.masked_fill(scores <= DEAD_SCORE, DEAD_END))
    return first_items(
        found.unflatten(0, (-1, k)).cpu().numpy(), scores.unflatten(0, (-1, k)).cpu().numpy(), allowed, trie.num_items
    )


def first_items(
    found: np.ndarray, scores: np.ndarray, allowed: np.ndarray | None, num_items: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return each list's first k items.

    Args:
        found: The items of each code, `[lists, k, items per code]`, -1 where there is none.
        scores: Each code's score, `[lists, k]`, best first.
        allowed: A code is shared by items of which not all may be allowed: `[items]`, `[lists, items]` or None.
        num_items: Items in the catalog.
    """
    num_lists, k, per_code = found.shape
    if per_code > 1:
        # Items that share a code share a score, and come in the fixed random order of all ties.
        order = np.where(found == NO_ITEM, num_items, tie_ranks(num_items)[found]).argsort(axis=2)
        found = np.take_along_axis(found, order, axis=2)
    items = found.reshape(num_lists, k * per_code)
    if allowed is not None:
        by_list = np.broadcast_to(allowed, (num_lists, num_items))
        items = np.where(np.take_along_axis(by_list, items.clip(min=0), axis=1), items, NO_ITEM)
    first = (items == NO_ITEM).argsort(axis=1, kind="stable")[:, :k]
    items = np.take_along_axis(items, first, axis=1)
    values = np.take_along_axis(np.repeat(scores, per_code, axis=1), first, axis=1)
    return items, np.where(items == NO_ITEM, -np.inf, values)
