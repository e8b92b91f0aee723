"""Residual k-means against plain k-means on residuals that are written out."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from genrec.item_tokenizers import RQKMeansTokenizer, residual_kmeans
from genrec.item_tokenizers.quantizers import nearest_codes, perplexity, residual_codes, squared_distances
from genrec.item_tokenizers.residual_kmeans import Residuals, learn_codebooks


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed))


def two_levels_known(vectors):
    """Residuals after two random codebooks, and the same written out."""
    books = [normal(4, vectors.shape[1], seed=8), 0.5 * normal(3, vectors.shape[1], seed=9)]
    left, written = Residuals.of(vectors), vectors - vectors.mean(dim=0)
    for book in books:
        left, written = left.after(book), written - book[nearest_codes(written, book)]
    return left, written


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(residual_kmeans, "VECTORS_PER_CHUNK", 7)


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_look_ups_find_what_written_residuals_find(offset, small_chunks):
    left, written = two_levels_known(offset + normal(50, 6))
    torch.testing.assert_close(left.written(slice(None)), written, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(left.lengths, written.square().sum(dim=1), atol=5e-3, rtol=1e-3)
    centres = normal(5, 6, seed=3)
    codes, lengths = left.nearest(centres)
    expected = squared_distances(written, centres)
    assert torch.equal(codes, expected.argmin(dim=1))
    torch.testing.assert_close(lengths, expected.min(dim=1).values, atol=5e-3, rtol=1e-3)


def test_an_iteration_moves_centres_to_the_means_of_written_residuals(small_chunks):
    left, written = two_levels_known(normal(60, 4))
    centres = written[:3]
    codes = nearest_codes(written, centres)
    expected = torch.stack([written[codes == code].mean(dim=0) for code in range(3)])
    torch.testing.assert_close(left.cluster(centres, 1), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(left.means(codes, 3), expected, atol=1e-5, rtol=1e-4)


def test_selected_and_projected_residuals_are_those_of_the_rows(small_chunks):
    left, written = two_levels_known(normal(40, 6))
    rows, directions = torch.tensor([3, 30, 7]), normal(6, 2, seed=1)
    assert left.select(torch.arange(40)) is left
    torch.testing.assert_close(left.select(rows).written(slice(None)), written[rows])
    torch.testing.assert_close(left.projected(directions), written @ directions, atol=1e-5, rtol=1e-4)


def test_the_codebooks_describe_the_vectors_as_they_are():
    """The first codebook holds the common offset, so plain residual quantisation works with the result."""
    vectors = 500 + normal(300, 5)
    codebooks, center = learn_codebooks(vectors, [8, 8], 10, generator())
    torch.testing.assert_close(center, vectors.mean(dim=0))
    exact, (first, second) = vectors.double(), [codebook.double() for codebook in codebooks]
    left = exact - first[nearest_codes(exact, first)]
    assert left.square().sum() < 0.7 * (vectors - center).square().sum()
    written = torch.stack([nearest_codes(exact, first), nearest_codes(left, second)], dim=1)
    assert torch.equal(residual_codes(vectors, codebooks), written)


@pytest.mark.parametrize("dim", [20, 200])  # below and above the dimensions that a start sees
def test_no_level_of_noise_collapses_onto_one_code(dim):
    """What deep levels describe is much like noise; there a centre that once has most vectors attracts all others."""
    vectors = normal(2_000, dim)
    codebooks, _ = learn_codebooks(vectors, [32, 32, 32], 20, generator())
    codes = residual_codes(vectors, codebooks)
    assert all(perplexity(torch.bincount(level, minlength=32)) > 24 for level in codes.T)


def test_main_directions_find_clusters_that_noise_hides():
    """64 clusters along 10 of 300 dimensions: each item must share its code with its cluster's others only."""
    basis = torch.linalg.qr(normal(300, 10)).Q
    cluster = torch.arange(1_280) % 64
    vectors = 30 * normal(64, 10, seed=1)[cluster] @ basis.T + normal(1_280, 300, seed=2)
    codes = residual_codes(vectors, learn_codebooks(vectors, [64], 12, generator())[0])[:, 0]
    pairs = torch.stack([cluster, codes], dim=1).unique(dim=0)
    assert len(pairs) <= 68


def test_equal_vectors_are_described_without_error():
    codebooks, _ = learn_codebooks(torch.full((50, 3), 7.0), [4, 4], 5, generator())
    assert (codebooks[0][residual_codes(torch.full((1, 3), 7.0), codebooks)[0, 0]] == 7).all()


def test_half_precision_is_read_as_it_is():
    vectors = normal(400, 8).half()
    from_half, from_float = (learn_codebooks(part, [8, 8], 8, generator())[0] for part in (vectors, vectors.float()))
    assert all(torch.equal(half, full) for half, full in zip(from_half, from_float, strict=True))


class LargestNewTensor(TorchDispatchMode):
    """Notes how many elements the largest tensor has that an operation made, views left out."""

    def __init__(self):
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {part.untyped_storage().data_ptr() for part in tree_leaves((args, kwargs)) if torch.is_tensor(part)}
        output = func(*args, **(kwargs or {}))
        for part in tree_leaves(output):
            if torch.is_tensor(part) and part.untyped_storage().data_ptr() not in given:
                self.largest = max(self.largest, part.numel())
        return output


def test_fitting_makes_no_copy_of_the_vectors():
    """With every vector in the sample nothing that `fit` makes is as large as a third of the vectors."""
    vectors = normal(30_000, 48)
    tokenizer = RQKMeansTokenizer([16, 16, 16], num_iterations=4, max_vectors_per_code=None)
    with LargestNewTensor() as seen:
        tokenizer.fit(vectors, range(30_000), "view,buy")
    assert 16 * 4_096 <= seen.largest < vectors.numel() / 3
