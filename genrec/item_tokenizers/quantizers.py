"""Vector quantisation in plain tensor functions: nearest codes, residual codes, k-means, Sinkhorn balancing.

Residual quantisation describes a vector by one code per level: the first codebook's nearest entry is subtracted, the
second codebook describes what is left, and so on (Chen, Guan and Wang, "Approximate nearest neighbor search by residual
vector quantization", Sensors 2010; for items: Rajput et al., "Recommender Systems with Generative Retrieval",
NeurIPS 2023).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

VECTORS_PER_CHUNK = 4_096  # small enough for a processor's cache
TINY = 1e-300


def squared_distances(vectors: Tensor, codebook: Tensor) -> Tensor:
    """Return squared Euclidean distances, `[vectors, codes]`.

    >>> squared_distances(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 1.0], [3.0, 5.0]])).tolist()
    [[0.0, 25.0]]
    """
    lengths = vectors.square().sum(dim=1, keepdim=True) + codebook.square().sum(dim=1)
    return lengths.sub_(vectors @ codebook.T, alpha=2).clamp_(min=0)


def nearest_codes(vectors: Tensor, codebook: Tensor) -> Tensor:
    """Return the index of the nearest code of each vector, `[vectors]`, in bounded memory; the first of equal ones."""
    chunks = [squared_distances(chunk, codebook).min(dim=1).indices for chunk in vectors.split(VECTORS_PER_CHUNK)]
    return torch.cat(chunks)


def residual_codes(vectors: Tensor, codebooks: Sequence[Tensor]) -> Tensor:
    """Describe each vector by the nearest code of what the levels before left over.

    What is left over is never written: its products with the codes of a level are those of the vector, less those of
    the codes chosen before, which stand in a table.

    Args:
        vectors: `[vectors, dim]` of any floating type, read once, in chunks.
        codebooks: One `[codes, dim]` float32 per level, on the device that shall compute.

    Returns:
        Codes, `[vectors, levels]`, on that device.

    Example:
        >>> codebooks = [torch.tensor([[0.0], [10.0]]), torch.tensor([[1.0], [2.0]])]
        >>> residual_codes(torch.tensor([[11.0]]), codebooks).tolist()
        [[1, 0]]
    """
    # Taking the middle of the first codebook out keeps the products small where vectors share a large offset.
    origin = codebooks[0].mean(dim=0)
    books = torch.cat([codebooks[0] - origin, *codebooks[1:]])
    table = 2 * books @ books.T
    bias = table.diagonal() / 2 + 2 * books @ origin
    # Made before the loop: results kept between its passing matrices would hold on to the memory around them.
    codes = torch.empty(len(vectors), len(codebooks), dtype=torch.long, device=books.device)
    parts = zip(vectors.split(VECTORS_PER_CHUNK), codes.split(VECTORS_PER_CHUNK), strict=True)
    for chunk, part in parts:
        distances = torch.addmm(bias, chunk.to(books), books.T, alpha=-2)
        _descend(distances, table, [len(codebook) for codebook in codebooks], part)
    return codes


def _descend(distances: Tensor, table: Tensor, sizes: Sequence[int], codes: Tensor) -> None:
    """Fill in codes level by level.

    Args:
        distances: From the vectors, as if no level came before, to the codes of all levels side by side,
            `[vectors, codes]`, up to a constant of each vector; changed in place.
        table: How much further away each code is once another was chosen before it, `[codes, codes]`.
        sizes: Codes per level.
        codes: `[vectors, levels]`; filled in.
    """
    start = 0
    for level, size in enumerate(sizes):
        codes[:, level] = distances[:, start : start + size].min(dim=1).indices
        chosen, start = start + codes[:, level], start + size
        distances[:, start:] += table[:, start:][chosen]


def reconstruct(codes: Tensor, codebooks: Sequence[Tensor]) -> Tensor:
    """Return the sum of the codes' vectors, `[vectors, dim]`, for codes `[vectors, levels]` of at least one level."""
    total = codebooks[0][codes[:, 0]]
    for level, codebook in enumerate(codebooks[1:], start=1):
        total += codebook[codes[:, level]]
    return total


def kmeans(vectors: Tensor, num_codes: int, generator: torch.Generator, num_iterations: int = 10) -> Tensor:
    """Cluster vectors by Lloyd's iterations from a k-means++ start (Arthur and Vassilvitskii, SODA 2007).

    A code that loses all its vectors moves to one of the vectors that are worst described.

    Args:
        vectors: `[vectors, dim]`.
        num_codes: How many centres; more than there are different vectors gives repeated centres.
        generator: Makes the result repeatable.
        num_iterations: Lloyd iterations.

    Returns:
        Centres, `[num_codes, dim]`.
    """
    centres = spread_start(vectors, num_codes, generator)
    for _ in range(num_iterations):
        distances, codes = squared_distances(vectors, centres).min(dim=1)
        counts = torch.bincount(codes, minlength=num_codes)
        sums = torch.zeros_like(centres).index_add_(0, codes, vectors)
        centres = sums / counts.clamp(min=1)[:, None]
        empty = torch.nonzero(counts == 0).flatten()[: len(vectors)]
        centres[empty] = vectors[distances.topk(len(empty)).indices]
    return centres


def spread_start(vectors: Tensor, num_codes: int, generator: torch.Generator, num_candidates: int = 1) -> Tensor:
    """Draw k-means++ starting centres: one after the other, with odds proportional to the distance to those before.

    Args:
        vectors: `[vectors, dim]`.
        num_codes: How many centres.
        generator: Makes the result repeatable.
        num_candidates: So many are drawn for each centre, and the one that brings the vectors closest is kept (greedy
            k-means++). More than one gives better and steadier centres.

    Returns:
        Some of the vectors, `[num_codes, dim]`; different ones as long as there are any.
    """
    lengths = vectors.square().sum(dim=1)
    chosen = torch.zeros(num_codes, dtype=torch.long)
    distances = torch.full((len(vectors),), torch.inf)
    for code in range(num_codes):
        odds = distances if code > 0 and distances.sum() > 0 else torch.ones(len(vectors))
        rows = torch.multinomial(odds, num_candidates if code > 0 else 1, replacement=True, generator=generator)
        to_rows = (lengths + lengths[rows, None] - 2 * (vectors[rows] @ vectors.T)).clamp(min=0)
        to_rows = torch.minimum(distances, to_rows)
        best = to_rows.sum(dim=1).argmin()
        chosen[code], distances = rows[best], to_rows[best]
        distances[rows[best]] = 0
    return vectors[chosen]


def sinkhorn_codes(distances: Tensor, epsilon: float, num_iterations: int = 50) -> Tensor:
    """Assign vectors to codes so that all codes of the batch get about the same share.

    Distances are scaled to a range of 2 and turned into a transport plan with equal row sums and equal column sums;
    each vector takes its largest entry (Cuturi, NeurIPS 2013; used for item codes by LC-Rec, ICDE 2024).

    Args:
        distances: `[vectors, codes]`.
        epsilon: Temperature on the scaled distances; smaller follows the distances more and balances less exactly.
        num_iterations: Alternating normalisations.

    Returns:
        Codes, `[vectors]`.
    """
    scaled = 2 * distances.double() / (distances.max() - distances.min()).clamp(min=1e-5)
    kernel = torch.exp((scaled.amin(dim=1, keepdim=True) - scaled) / epsilon)
    column_scale = torch.ones(distances.shape[1], dtype=kernel.dtype, device=kernel.device)
    for _ in range(num_iterations):
        row_scale = 1 / (kernel @ column_scale).clamp(min=TINY)
        column_scale = 1 / (row_scale @ kernel).clamp(min=TINY)
    return (kernel * column_scale).argmax(dim=1)


def perplexity(counts: Tensor) -> float:
    """Return how many equally used codes would be as varied as these: exp of the entropy of `counts`, `[codes]`.

    >>> perplexity(torch.tensor([5, 5, 0, 0])), perplexity(torch.tensor([10, 0]))
    (2.0, 1.0)
    """
    shares = counts[counts > 0].double() / counts.sum()
    return round(float(torch.exp(-(shares * shares.log()).sum())), 6)
