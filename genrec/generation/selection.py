"""Choosing the best continuations of each beam along the trie: on the device, in fixed shapes, ties by code order.

No value is read back to the host and no shape depends on data, so that a whole search compiles into one graph.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from genrec.generation.trie import DEAD_END, ROOT, ItemTrie, is_alive
from genrec.item_tokenizers.vocabulary import PAD


class Beams(NamedTuple):
    """The beams of each request, a user and a behavior, in the order of their nodes.

    Args:
        nodes: Where each beam stands in the trie `[requests, beams]`.
        scores: Sums of log-probabilities; `-inf` where there is no beam `[requests, beams]`, float32.
        tokens: The codes so far `[requests, beams, codes]`.
        parents: Which beam of the level above each one continues `[requests, beams]`.
    """

    nodes: Tensor
    scores: Tensor
    tokens: Tensor
    parents: Tensor


def first_beams(behaviors: Tensor) -> Beams:
    """Return the one beam without codes that each request starts from.

    Args:
        behaviors: The behavior tokens asked for; only their number and device count `[batch, targets]`.
    """
    nodes = torch.full_like(behaviors.reshape(-1, 1), ROOT)
    return Beams(
        nodes, torch.zeros_like(nodes, dtype=torch.float32), nodes[..., None][..., :0], torch.zeros_like(nodes)
    )


def extend(
    beams: Beams, log_probabilities: Tensor, trie: ItemTrie, alive: Tensor | None, level: int, offset: int, width: int
) -> Beams:
    """Return the `width` best continuations of each request's beams.

    Beams stand in the order of their nodes and children in the order of their codes, so candidates stand in the order
    of their nodes too, and ties go to the lower node.

    Args:
        beams: The beams so far.
        log_probabilities: Of this level's codes, `[requests, beams, codebook size]`.
        trie: The catalog's codes.
        alive: Nodes that lead to an allowed item, or None.
        level: The level to choose codes of.
        offset: The level's first token id.
        width: How many to keep at most.
    """
    children, tokens = trie.children(beams.nodes, level)
    is_open = children != DEAD_END if alive is None else is_alive(alive, children.flatten(1)).view_as(children)
    codes = (tokens - offset).clamp(0, log_probabilities.shape[-1] - 1)
    scores = log_probabilities.gather(2, codes) + beams.scores[..., None]
    scores = scores.masked_fill(~is_open, -torch.inf).flatten(1)
    chosen = top_in_order(scores, min(width, scores.shape[1]))
    parents = chosen // children.shape[2]
    scores = scores.gather(1, chosen)
    nodes = children.flatten(1).gather(1, chosen).masked_fill(scores == -torch.inf, DEAD_END)
    older = beams.tokens.gather(1, parents[..., None].expand(-1, -1, level))
    return Beams(nodes, scores, torch.cat([older, tokens.flatten(1).gather(1, chosen)[..., None]], dim=2), parents)


def top_in_order(scores: Tensor, count: int) -> Tensor:
    """Return where the `count` highest scores of each row are, in column order; of equal ones, the leftmost.

    A score and its column make one integer that sorts like the pair, so that no two candidates tie and every device
    chooses alike.

    Args:
        scores: `[rows, columns]` float32.
        count: How many to choose.

    Example:
        >>> top_in_order(torch.tensor([[0.5, 2.0, 2.0, 2.0, 1.0]]), count=2).tolist()
        [[1, 2]]
    """
    return _sortable(scores).topk(count, dim=1).indices.sort(dim=1).values


def _sortable(scores: Tensor) -> Tensor:
    """Return int64 numbers that sort like `(score, -column)`."""
    bits = (scores + 0.0).contiguous().view(torch.int32)  # adding 0 turns -0.0, which equals 0.0, into it
    ascending = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # negative floats have falling bit patterns
    columns = torch.arange(scores.shape[1], device=scores.device)
    return (ascending.long() << 32) + (scores.shape[1] - 1 - columns)


def best_items(beams: Beams, num_results: int) -> tuple[Tensor, Tensor]:
    """Return the best beams' codes and scores, best first, filled up with padding that scores `-inf`.

    Args:
        beams: The last level's beams.
        num_results: How many to return per request.

    Returns:
        Token ids `[requests, num_results, levels]` and scores `[requests, num_results]`.
    """
    kept = min(num_results, beams.scores.shape[1])
    order = _sortable(beams.scores).topk(kept, dim=1).indices
    scores = beams.scores.gather(1, order)
    tokens = beams.tokens.gather(1, order[..., None].expand(-1, -1, beams.tokens.shape[2]))
    tokens = tokens.masked_fill(scores[..., None] == -torch.inf, PAD)
    missing = num_results - kept
    return pad(tokens, (0, 0, 0, missing), value=PAD), pad(scores, (0, missing), value=-torch.inf)
