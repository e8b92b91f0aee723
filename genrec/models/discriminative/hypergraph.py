"""The hypergraph of a history: hyperedges between items that are alike, and between the returns of one item.

Yang et al., *Multi-behavior hypergraph-enhanced transformer for sequential recommendation* (MBHT), KDD 2022. The nodes
are the places of a history. Each distinct item has a hyperedge, joined by the places to whose items it is among the
most similar; an item that comes more than once, as under several behaviors, has another one of its places. All is
computed from the batch when it is needed, since similarity is learned.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

MIN_SIMILARITY = 0.01  # of chosen neighbours that are dissimilar: degrees stay positive


class HypergraphView(nn.Module):
    """What each place knows from the hypergraph, instead of from the order of the history.

    Args:
        width: Width of the item embeddings.
        num_similar: Hyperedges of distinct items that a place joins at most, its own item's included.
        dropout: Dropout rate after each of the two propagations.
        num_metrics: Learned weightings of the coordinates; similarity is the mean of their cosines.
    """

    def __init__(self, width: int, num_similar: int, dropout: float, num_metrics: int = 2) -> None:
        super().__init__()
        self.gate = nn.Linear(width, width)
        self.metrics = nn.Parameter(torch.empty(num_metrics, width))
        self.dropout = nn.Dropout(dropout)
        self.num_similar = num_similar

    def forward(self, embeddings: Tensor, items: Tensor, is_known: Tensor) -> Tensor:
        """Return the mean of the states after one and after two propagations, `[batch, length, width]`.

        Args:
            embeddings: Of the items, `[batch, length, width]`.
            items: Which items these are, `[batch, length]`.
            is_known: Which places are nodes, `[batch, length]`; the others get zeros.
        """
        gated = embeddings * torch.sigmoid(self.gate(embeddings))
        similarity = mean_cosine(gated, self.metrics)
        matrix = propagation(incidence(items, is_known, similarity, self.num_similar))
        once = self.dropout(matrix @ gated)
        return (once + self.dropout(matrix @ once)) / 2


def mean_cosine(states: Tensor, metrics: Tensor) -> Tensor:
    """Return the similarity of each two places, `[batch, length, length]`.

    Args:
        states: `[batch, length, width]`.
        metrics: Weights of the coordinates, `[metrics, width]`; the cosines under each are averaged.
    """
    weighted = functional.normalize(states[:, None] * metrics[:, None], dim=-1)  # [batch, metrics, length, width]
    return (weighted @ weighted.transpose(-1, -2)).mean(dim=1)


def incidence(items: Tensor, is_known: Tensor, similarity: Tensor, num_similar: int) -> Tensor:
    """Return how much each place belongs to each hyperedge, `[batch, length, 2 * length]`.

    The hyperedges of an item stand at the column of its first place, those of similar items in the first half, those of
    its own places, if there are several, in the second; other columns are zero.

    Args:
        items: `[batch, length]`.
        is_known: Which places are nodes, `[batch, length]`.
        similarity: Of each two places, `[batch, length, length]`.
        num_similar: The most similar distinct items whose hyperedges a place joins, its own item included.

    >>> alike = torch.tensor([[[1.0, 1.0, 0.5], [1.0, 1.0, 0.5], [0.5, 0.5, 1.0]]])
    >>> incidence(torch.tensor([[7, 7, 2]]), torch.ones(1, 3, dtype=torch.bool), alike, num_similar=2)[0].tolist()
    [[1.0, 0.0, 0.5, 1.0, 0.0, 0.0], [1.0, 0.0, 0.5, 1.0, 0.0, 0.0], [0.5, 0.0, 1.0, 0.0, 0.0, 0.0]]
    """
    is_same = (items[:, :, None] == items[:, None, :]) & is_known[:, :, None] & is_known[:, None, :]
    is_first = is_known & ~is_same.tril(-1).any(dim=2)
    own = is_same & is_first[:, None, :]
    # Its own item comes first whatever rounding does to the similarity of a place and itself.
    ranked = similarity.detach().masked_fill(own, torch.inf).masked_fill(~is_first[:, None, :], -torch.inf)
    nearest = ranked.topk(min(num_similar, items.shape[1]), dim=2).indices
    is_chosen = torch.zeros_like(own).scatter(2, nearest, True) & is_first[:, None, :] & is_known[:, :, None]
    weights = torch.where(own, 1.0, similarity.clamp(min=MIN_SIMILARITY)) * is_chosen
    returns = own & (is_same.sum(dim=2, keepdim=True) > 1)
    return torch.cat([weights, returns.to(weights)], dim=2)


def propagation(matrix: Tensor) -> Tensor:
    """Return `Dv^-1 H De^-1 H^T` of an incidence matrix `H`: places to hyperedges and back, `[batch, length, length]`.

    Each row sums to 1, those of places without a hyperedge to 0.

    Args:
        matrix: `[batch, length, hyperedges]`, none of it negative.
    """
    node_degrees = matrix.sum(dim=2, keepdim=True)
    edge_degrees = matrix.sum(dim=1, keepdim=True)
    tiny = torch.finfo(matrix.dtype).tiny
    return (matrix / node_degrees.clamp(min=tiny)) @ (matrix / edge_degrees.clamp(min=tiny)).transpose(1, 2)


def window_means(states: Tensor, is_known: Tensor, before: int, after: int) -> Tensor:
    """Return for each place the mean of the known ones from `before` places earlier to less than `after` later.

    Args:
        states: `[batch, length, width]`.
        is_known: `[batch, length]`.
        before: Places before.
        after: Places from the place itself on.

    Returns:
        `[batch, length, width]`, zero where a window holds nothing known.

    >>> window_means(torch.tensor([[[1.0], [5.0], [9.0]]]), torch.tensor([[True, False, True]]), 1, 1)[0, :, 0].tolist()
    [1.0, 1.0, 9.0]
    """
    columns = torch.arange(states.shape[1], device=states.device)
    offsets = columns[None, :] - columns[:, None]
    window = ((offsets >= -before) & (offsets < after) & is_known[:, None, :]).to(states)
    return (window @ states) / window.sum(dim=2, keepdim=True).clamp(min=1)
