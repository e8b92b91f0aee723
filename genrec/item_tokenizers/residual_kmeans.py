"""Learns the codebooks of residual k-means, without ever writing what one level leaves to the next.

With `c_l` the codes of the levels before, what they leave of a vector `x` is nearest to the centre `c` that has the
smallest `|c|^2 - 2 x.c + 2 sum_l <c_l, c>`: one product with the vector as it is and one look-up per level. So vectors
are read in chunks, once per iteration, and may be half precision or a memory map.

Three iterations in four see only the main directions of what is left over. That is cheaper by the ratio of the
dimensions, and finds better centres than as many iterations in all dimensions; faiss's progressive clustering
(`ProgressiveDimClustering`) rests on the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from genrec.item_tokenizers.quantizers import VECTORS_PER_CHUNK, spread_start

START_DIMS = 128
START_VECTORS_PER_CODE = 256
SEEDS_PER_CODE = 64
COVARIANCE_VECTORS = 8_192
CANDIDATES_PER_SEED = 6
FULL_RATE = 0.25
IDLE_RATE = 0.1  # of an equal share of the vectors
SETTLING_ITERATIONS = 2  # the last ones move only centres without any vector
SPLIT_STEP = 0.1


def learn_codebooks(
    vectors: Tensor, codebook_sizes: Sequence[int], num_iterations: int, generator: torch.Generator
) -> tuple[list[Tensor], Tensor]:
    """Cluster vectors, then what the clusters leave over, and so on.

    Args:
        vectors: `[vectors, dim]` of any floating type, at least as many as the largest codebook has codes. Where they
            lie, there is computed.
        codebook_sizes: One size per level.
        num_iterations: Lloyd iterations per level, a quarter of them in all dimensions.
        generator: Draws the starts; on the CPU.

    Returns:
        One codebook `[codes, dim]` float32 per level, and the vectors' mean, `[dim]` float32.

    Example:
        >>> vectors = torch.tensor([[0.0, 1.0], [0.0, -1.0], [9.0, 1.0], [9.0, -1.0]])
        >>> (first, second), _ = learn_codebooks(vectors, [2, 2], 8, torch.Generator().manual_seed(0))
        >>> sorted(first.tolist()), sorted(second.tolist())
        ([[0.0, 0.0], [9.0, 0.0]], [[0.0, -1.0], [0.0, 1.0]])
    """
    left = Residuals.of(vectors)
    num_full = max(1, round(FULL_RATE * num_iterations))
    for size in codebook_sizes:
        centres = _start(left, size, max(1, num_iterations - num_full), generator)
        left = left.after(left.cluster(centres, num_full))
    return [left.books[0] + left.origin, *left.books[1:]], left.origin


@dataclass(frozen=True)
class Residuals:
    """What known levels leave over of vectors, by reference.

    Args:
        vectors: `[vectors, dim]` of any floating type.
        origin: Subtracted from every vector, `[dim]` float32.
        lengths: Squared lengths of what is left over, `[vectors]` float32.
        books: Codebooks of the known levels.
        codes: The code of each vector at each known level, `[vectors]` each.
    """

    vectors: Tensor
    origin: Tensor
    lengths: Tensor
    books: tuple[Tensor, ...] = ()
    codes: tuple[Tensor, ...] = ()

    @classmethod
    def of(cls, vectors: Tensor) -> "Residuals":
        """Begin with no level, around the mean."""
        chunks = vectors.split(VECTORS_PER_CHUNK)
        origin = torch.stack([chunk.float().sum(dim=0) for chunk in chunks]).sum(dim=0) / len(vectors)
        return cls(vectors, origin, torch.cat([(chunk.float() - origin).square().sum(dim=1) for chunk in chunks]))

    def after(self, book: Tensor) -> "Residuals":
        """Add a level: what its codebook leaves over."""
        codes, lengths = self.nearest(book)
        return Residuals(self.vectors, self.origin, lengths, (*self.books, book), (*self.codes, codes))

    def select(self, rows: Tensor) -> "Residuals":
        """Keep some rows, `[rows]`; all of them cost no copy."""
        if len(rows) == len(self.vectors):
            return self
        codes = tuple(codes[rows] for codes in self.codes)
        return Residuals(self.vectors[rows], self.origin, self.lengths[rows], self.books, codes)

    def written(self, rows: Tensor | slice) -> Tensor:
        """Return what is left over of some rows as it is, `[rows, dim]` float32."""
        left = self.vectors[rows].float() - self.origin
        for book, codes in zip(self.books, self.codes, strict=True):
            left -= book[codes[rows]]
        return left

    def projected(self, directions: Tensor) -> Tensor:
        """Return what is left over along some directions `[dim, directions]`, `[vectors, directions]` float32."""
        left = torch.cat([chunk.float() @ directions for chunk in self.vectors.split(VECTORS_PER_CHUNK)])
        left -= self.origin @ directions
        for book, codes in zip(self.books, self.codes, strict=True):
            left -= (book @ directions)[codes]
        return left

    def nearest(self, centres: Tensor) -> tuple[Tensor, Tensor]:
        """Return each row's nearest centre, `[vectors]`, and the squared distance to it, `[vectors]`."""
        codes, lengths = self._room_for_codes()
        for part, chunk_codes, chunk_lengths in self._nearest(centres):
            codes[part], lengths[part] = chunk_codes, chunk_lengths
        return codes, lengths

    def cluster(self, centres: Tensor, num_iterations: int) -> Tensor:
        """Return centres, `[centres, dim]`, after Lloyd's iterations.

        A centre that describes hardly anything moves and splits one that describes much. Without that, k-means of
        what is left over at deep levels, which is much like noise, ends with one centre for nearly all vectors.
        """
        codes, lengths = self._room_for_codes()
        for remaining in reversed(range(num_iterations)):
            sums = torch.zeros_like(centres)
            for part, chunk_codes, chunk_lengths in self._nearest(centres):
                sums += sums_by_code(self.vectors[part].float(), chunk_codes, len(centres))
                codes[part], lengths[part] = chunk_codes, chunk_lengths
            counts, centres = self._means(sums, codes)
            share = IDLE_RATE * len(self.vectors) / len(centres) if remaining >= SETTLING_ITERATIONS else 0.0
            errors = sums_by_code(lengths[:, None], codes, len(centres)).flatten()
            _split(centres, counts, errors, counts < max(1.0, share))
        return centres

    def means(self, codes: Tensor, num_codes: int) -> Tensor:
        """Return the mean of what is left over of the rows of each code, `[num_codes, dim]`; 0 for a code without."""
        parts = zip(self.vectors.split(VECTORS_PER_CHUNK), codes.split(VECTORS_PER_CHUNK), strict=True)
        sums = torch.stack([sums_by_code(chunk.float(), part, num_codes) for chunk, part in parts]).sum(dim=0)
        return self._means(sums, codes)[1]

    def _room_for_codes(self) -> tuple[Tensor, Tensor]:
        """Return where to write each row's code and squared length, `[vectors]` each."""
        return torch.empty_like(self.lengths, dtype=torch.long), torch.empty_like(self.lengths)

    def _nearest(self, centres: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield chunks of rows with their nearest centres and the squared distances to these."""
        bias = centres.square().sum(dim=1) + 2 * centres @ self.origin
        tables = [2 * book @ centres.T for book in self.books]
        for start in range(0, len(self.vectors), VECTORS_PER_CHUNK):
            part = slice(start, start + VECTORS_PER_CHUNK)
            distances = torch.addmm(bias, self.vectors[part].float(), centres.T, alpha=-2)
            for table, codes in zip(tables, self.codes, strict=True):
                distances += table[codes[part]]
            smallest, nearest = distances.min(dim=1)
            yield part, nearest, (smallest + self.lengths[part]).clamp(min=0)

    def _means(self, sums: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Return how many rows each code has, and the mean of what is left over of them, given the vectors' sums."""
        counts = torch.bincount(codes, minlength=len(sums))
        sums = sums - counts[:, None] * self.origin
        for book, known in zip(self.books, self.codes, strict=True):
            together = torch.bincount(codes * len(book) + known, minlength=len(sums) * len(book))
            sums -= together.view(len(sums), len(book)).float() @ book
        return counts, sums / counts.clamp(min=1)[:, None]


def sums_by_code(vectors: Tensor, codes: Tensor, num_codes: int) -> Tensor:
    """Return the sum of the vectors of each code, `[num_codes, dim]`.

    >>> sums_by_code(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([2, 0, 2]), 3).tolist()
    [[2.0], [0.0], [5.0]]
    """
    counts = torch.bincount(codes, minlength=num_codes)
    # Bags of rows are summed in the order of the rows: repeatable, and faster than `index_add_`.
    return functional.embedding_bag(codes.argsort(stable=True), vectors, counts.cumsum(0) - counts, mode="sum")


def _start(left: Residuals, num_codes: int, num_iterations: int, generator: torch.Generator) -> Tensor:
    """Return centres found along the main directions of a sample, `[num_codes, dim]`, from a k-means++ start."""
    sample = left.select(_evenly(len(left.vectors), START_VECTORS_PER_CODE * num_codes))
    points = Residuals.of(_along_main_directions(sample))
    seeds = points.written(_evenly(len(points.vectors), SEEDS_PER_CODE * num_codes)).cpu()
    centres = spread_start(seeds, num_codes, generator, CANDIDATES_PER_SEED).to(points.vectors.device)
    codes, _ = points.nearest(points.cluster(centres, num_iterations))
    return sample.means(codes, num_codes)


def _split(centres: Tensor, counts: Tensor, errors: Tensor, is_idle: Tensor) -> None:
    """Move each idle centre beside one of the fullest, and both a little apart.

    Args:
        centres: `[centres, dim]`; changed in place.
        counts: How many vectors each describes, `[centres]`.
        errors: The sum of their squared distances to it, `[centres]`.
        is_idle: Which ones to move, `[centres]` bool; no more than half of them are.
    """
    idle = torch.nonzero(is_idle).flatten()[: len(centres) // 2]
    full = counts.topk(len(idle)).indices
    spread = (errors[full] / counts[full].clamp(min=1) / centres.shape[1]).sqrt()
    signs = 1 - 2 * (torch.arange(centres.shape[1], device=centres.device) % 2)  # some direction
    step = SPLIT_STEP * spread[:, None] * signs
    centres[idle], centres[full] = centres[full] + step, centres[full] - step


def _along_main_directions(left: Residuals) -> Tensor:
    """Return what is left over along the directions in which it varies most, `[vectors, START_DIMS]`."""
    if left.vectors.shape[1] <= START_DIMS:
        return left.written(slice(None))
    some = left.written(_evenly(len(left.vectors), COVARIANCE_VECTORS))
    return left.projected(torch.linalg.eigh(some.T @ some).eigenvectors[:, -START_DIMS:])


def _evenly(num_rows: int, num_wanted: int) -> Tensor:
    """Return at most `num_wanted` of `num_rows` row numbers, evenly spread.

    >>> _evenly(10, 3).tolist(), _evenly(3, 5).tolist()
    ([0, 3, 6], [0, 1, 2])
    """
    num_kept = min(num_rows, num_wanted)
    return torch.arange(num_kept) * num_rows // num_kept
