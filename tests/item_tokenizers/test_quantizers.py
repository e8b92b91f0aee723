import math

import pytest
import torch

from genrec.item_tokenizers.quantizers import (
    kmeans,
    nearest_codes,
    perplexity,
    reconstruct,
    residual_codes,
    sinkhorn_codes,
    spread_start,
    squared_distances,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_distances_equal_the_sum_of_squared_differences():
    vectors, codebook = torch.randn(7, 5, generator=generator()), torch.randn(4, 5, generator=generator(1))
    expected = (vectors[:, None] - codebook[None]).square().sum(dim=2)
    torch.testing.assert_close(squared_distances(vectors, codebook), expected)


def test_a_vector_is_at_distance_zero_of_itself_never_below():
    vectors = 1e3 * torch.randn(50, 8, generator=generator())
    distances = squared_distances(vectors, vectors)
    assert (distances >= 0).all()
    assert torch.equal(nearest_codes(vectors, vectors), torch.arange(50))


def test_chunks_do_not_change_the_nearest_codes(monkeypatch):
    vectors, codebook = torch.randn(33, 5, generator=generator()), torch.randn(6, 5, generator=generator(1))
    whole = nearest_codes(vectors, codebook)
    monkeypatch.setattr("genrec.item_tokenizers.quantizers.VECTORS_PER_CHUNK", 4)
    assert torch.equal(nearest_codes(vectors, codebook), whole)


def test_residual_codes_describe_what_is_left_over():
    codebooks = [torch.tensor([[0.0, 0.0], [10.0, 10.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])]
    vectors = torch.tensor([[11.0, 10.0], [0.0, 0.9], [10.0, 11.0]])
    codes = residual_codes(vectors, codebooks)
    assert codes.tolist() == [[1, 0], [0, 1], [1, 1]]
    assert reconstruct(codes, codebooks).tolist() == [[11.0, 10.0], [0.0, 1.0], [10.0, 11.0]]


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_look_ups_equal_residuals_that_are_written_out(offset, monkeypatch):
    vectors = offset + torch.randn(200, 6, generator=generator())
    codebooks = [
        scale * torch.randn(size, 6, generator=generator(size)) for scale, size in ((1, 5), (0.6, 7), (0.3, 4))
    ]
    codebooks[0] = codebooks[0] + offset
    residual, expected = vectors, []
    for codebook in codebooks:
        expected.append((residual[:, None] - codebook[None]).square().sum(dim=2).argmin(dim=1))
        residual = residual - codebook[expected[-1]]
    monkeypatch.setattr("genrec.item_tokenizers.quantizers.VECTORS_PER_CHUNK", 64)
    assert torch.equal(residual_codes(vectors, codebooks), torch.stack(expected, dim=1))
    assert torch.equal(residual_codes(vectors.double(), codebooks), torch.stack(expected, dim=1))


def test_more_candidates_start_closer_to_the_vectors():
    vectors = torch.randn(400, 3, generator=generator())

    def error(num_candidates):
        starts = [spread_start(vectors, 20, generator(seed), num_candidates) for seed in range(5)]
        return sum(float(squared_distances(vectors, start).min(dim=1).values.sum()) for start in starts)

    assert error(6) < error(1)
    assert len(spread_start(vectors, 400, generator(), 6).unique(dim=0)) == 400
    assert spread_start(torch.ones(3, 2), 2, generator(), 4).tolist() == [[1.0, 1.0]] * 2


def test_kmeans_finds_separate_clusters():
    centres = torch.tensor([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]])
    vectors = centres.repeat_interleave(10, dim=0) + torch.randn(30, 2, generator=generator())
    found = kmeans(vectors, 3, generator())
    expected = vectors.view(3, 10, 2).mean(dim=1)
    order = nearest_codes(expected, found)
    torch.testing.assert_close(found[order], expected)


def test_kmeans_uses_all_centres_where_vectors_differ():
    vectors = torch.randn(40, 4, generator=generator())
    codes = nearest_codes(vectors, kmeans(vectors, 40, generator()))
    assert len(codes.unique()) == 40


def test_kmeans_of_equal_vectors_repeats_the_centre():
    assert kmeans(torch.ones(5, 3), 4, generator()).tolist() == [[1.0] * 3] * 4


def test_kmeans_moves_an_empty_centre_to_the_worst_described_vector():
    """Both starts are drawn from the four equal vectors, so the lone fifth one gets a centre only by the move."""
    vectors = torch.tensor([[0.0], [0.0], [0.0], [0.0], [9.0]])
    centres = kmeans(vectors, 4, generator(), num_iterations=3)
    assert {0.0, 9.0} == set(centres.flatten().tolist())


def test_sinkhorn_balances_what_the_nearest_code_would_not():
    vectors = torch.randn(256, 2, generator=generator())
    codebook = torch.stack([torch.zeros(2), *(8 * torch.eye(2)), *(-8 * torch.eye(2))])
    distances = squared_distances(vectors, codebook)
    nearest = torch.bincount(distances.argmin(dim=1), minlength=5)
    balanced = torch.bincount(sinkhorn_codes(distances, epsilon=0.01), minlength=5)
    assert nearest.max() > 240
    assert balanced.max() <= 62  # an equal share is 51.2
    assert balanced.min() >= 40


def test_sinkhorn_keeps_assignments_that_are_balanced_already():
    distances = 1.0 - torch.eye(6)
    assert sinkhorn_codes(distances, epsilon=0.003).tolist() == list(range(6))


def test_sinkhorn_survives_equal_distances_and_tiny_epsilon():
    assert sinkhorn_codes(torch.ones(4, 3), epsilon=1e-4).shape == (4,)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([3, 3, 3], 3.0),
        ([1, 0, 0], 1.0),
        ([3, 1], math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))),
    ],
)
def test_perplexity_by_hand(counts, expected):
    assert perplexity(torch.tensor(counts)) == pytest.approx(expected, abs=1e-6)
