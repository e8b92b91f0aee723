"""The hypergraph of a history against sets, loops and dense matrices."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from genrec.models.discriminative.hypergraph import (
    MIN_SIMILARITY,
    HypergraphView,
    incidence,
    mean_cosine,
    propagation,
    window_means,
)

ITEMS = torch.tensor([[7, 2, 7, 5, 2, 9, 0], [4, 4, 0, 0, 3, 1, 4]])
IS_KNOWN = torch.tensor([[1, 1, 1, 0, 1, 1, 0], [1, 1, 1, 1, 1, 1, 1]], dtype=torch.bool)


def alike(seed: int = 0) -> torch.Tensor:
    """Return a random similarity of each two places, the same for places of the same items."""
    table = functional.normalize(torch.randn(10, 6, generator=torch.Generator().manual_seed(seed)), dim=-1)
    return table[ITEMS] @ table[ITEMS].transpose(1, 2)


def naive_hyperedges(row, similarity, num_similar):
    """Return the hyperedges of a row as mappings from places to weights, by the definition."""
    places = [place for place in range(ITEMS.shape[1]) if IS_KNOWN[row, place]]
    first_of = {}
    for place in places:
        first_of.setdefault(int(ITEMS[row, place]), place)
    alike_edges = {item: {} for item in first_of}
    for place in places:
        own = int(ITEMS[row, place])
        others = sorted((item for item in first_of if item != own), key=lambda i: -similarity[row, place, first_of[i]])
        alike_edges[own][place] = 1.0
        for item in others[: num_similar - 1]:
            alike_edges[item][place] = max(float(similarity[row, place, first_of[item]]), MIN_SIMILARITY)
    edges = list(alike_edges.values())
    for item in first_of:
        holders = [place for place in places if ITEMS[row, place] == item]
        if len(holders) > 1:
            edges.append(dict.fromkeys(holders, 1.0))
    return edges


def columns_of(matrix):
    """Return the non-zero columns of a matrix, sorted, as tuples."""
    return sorted(tuple(round(float(value), 5) for value in column) for column in matrix.T if column.any())


@pytest.mark.parametrize("num_similar", [1, 2, 3, 6, 20])
def test_hyperedges_are_those_of_the_definition(num_similar):
    matrix = incidence(ITEMS, IS_KNOWN, alike(), num_similar)
    for row in range(2):
        edges = naive_hyperedges(row, alike(), num_similar)
        expected = torch.zeros(ITEMS.shape[1], len(edges))
        for column, edge in enumerate(edges):
            for place, weight in edge.items():
                expected[place, column] = weight
        assert columns_of(matrix[row]) == columns_of(expected)


def test_unknown_places_belong_to_no_hyperedge():
    matrix = incidence(ITEMS, IS_KNOWN, alike(), 3)
    assert not matrix[~IS_KNOWN].any()
    assert matrix[IS_KNOWN].any(dim=1).all()


def test_propagation_is_the_product_of_dense_matrices():
    """G = Dv^-1 H De^-1 H^T, over the hyperedges that exist."""
    matrix = incidence(ITEMS, IS_KNOWN, alike(), 3)
    got = propagation(matrix)
    for row in range(2):
        known = IS_KNOWN[row]
        dense = matrix[row][known]
        dense = dense[:, dense.any(dim=0)]
        node_degrees, edge_degrees = torch.diag(dense.sum(dim=1)), torch.diag(dense.sum(dim=0))
        expected = node_degrees.inverse() @ dense @ edge_degrees.inverse() @ dense.T
        torch.testing.assert_close(got[row][known][:, known], expected, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(got[row][known].sum(dim=1), torch.ones(int(known.sum())))
        assert not got[row][~known].any()
        assert not got[row][:, ~known].any()


def test_propagation_by_hand():
    """Two places share a hyperedge of weights 1 and 1; the second has another one to itself, of weight 2."""
    matrix = torch.tensor([[[1.0, 0.0], [1.0, 2.0]]])
    expected = [[1 / 2, 1 / 2], [1 / 3 * 1 / 2, 1 / 3 * 1 / 2 + 2 / 3 * 1]]
    torch.testing.assert_close(propagation(matrix)[0], torch.tensor(expected))


def test_similarity_is_the_mean_of_weighted_cosines():
    states, metrics = torch.randn(1, 4, 6), torch.randn(3, 6)
    got = mean_cosine(states, metrics)
    for i in range(4):
        for j in range(4):
            cosines = [functional.cosine_similarity(m * states[0, i], m * states[0, j], dim=0) for m in metrics]
            torch.testing.assert_close(got[0, i, j], torch.stack(cosines).mean())


def test_the_view_is_the_mean_of_one_and_of_two_propagations():
    view = HypergraphView(width=6, num_similar=3, dropout=0.0)
    nn.init.normal_(view.metrics)
    embeddings = torch.randn(10, 6)[ITEMS]
    gated = embeddings * torch.sigmoid(view.gate(embeddings))
    matrix = propagation(incidence(ITEMS, IS_KNOWN, mean_cosine(gated, view.metrics), 3))
    expected = (matrix @ gated + matrix @ matrix @ gated) / 2
    torch.testing.assert_close(view(embeddings, ITEMS, IS_KNOWN), expected)


def test_the_order_of_places_does_not_matter():
    view = HypergraphView(width=6, num_similar=3, dropout=0.0)
    nn.init.normal_(view.metrics)
    embeddings = torch.randn(10, 6)[ITEMS]
    order = torch.tensor([4, 0, 6, 2, 5, 1, 3])
    shuffled = view(embeddings[:, order], ITEMS[:, order], IS_KNOWN[:, order])
    torch.testing.assert_close(shuffled, view(embeddings, ITEMS, IS_KNOWN)[:, order], atol=1e-5, rtol=1e-4)


def test_window_means_are_means_of_slices():
    states = torch.randn(2, 7, 3)
    got = window_means(states, IS_KNOWN, before=2, after=3)
    for row in range(2):
        for place in range(7):
            window = [p for p in range(max(0, place - 2), min(7, place + 3)) if IS_KNOWN[row, p]]
            torch.testing.assert_close(got[row, place], states[row, window].mean(dim=0))
    assert not window_means(states, torch.zeros_like(IS_KNOWN), 2, 3).any()
