"""Residual k-means: each level's codebook is a k-means of what the levels before left over.

No network and one pass per level, so it is the learned tokenizer for very large catalogs (as in QARM, Luo et al., CIKM
2025; GAMER's RQ-KMeans). Unlike GAMER's release, a collision is repaired by the residual before the last level, not
after it.
"""

import numpy as np
import torch
from torch import Tensor

from genrec.item_tokenizers.quantizers import nearest_codes, spread_start
from genrec.item_tokenizers.residual import ResidualTokenizer
from genrec.item_tokenizers.sizes import AUTO, CodebookSizes, choose_codebook_sizes


class RQKMeansTokenizer(ResidualTokenizer):
    """Codes by residual k-means with faiss.

    The same vectors and seed give the same codes. Codebooks are learned from a sample, so that 1.3 million vectors of
    768 dimensions need little more memory than the vectors themselves.

    Args:
        codebook_sizes: One size per level, or `"auto"`: see `genrec.item_tokenizers.sizes.auto_codebook_sizes`.
        seed: Of the sample and the k-means starts.
        num_iterations: Lloyd iterations per level.
        max_vectors_per_code: The sample holds at most this many vectors per code of the largest codebook.

    Example:
        >>> vectors = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
        >>> tokenizer = RQKMeansTokenizer(codebook_sizes=[4, 16]).fit(vectors, list(range(40)), "view,buy")
        >>> tokenizer.decode(tokenizer.item_tokens) == list(range(40))
        True
    """

    def __init__(
        self,
        codebook_sizes: CodebookSizes = AUTO,
        *,
        seed: int = 0,
        num_iterations: int = 25,
        max_vectors_per_code: int = 256,
    ) -> None:
        sizes = codebook_sizes if isinstance(codebook_sizes, str) else list(codebook_sizes)
        super().__init__(
            codebook_sizes=sizes, seed=seed, num_iterations=num_iterations, max_vectors_per_code=max_vectors_per_code
        )

    def _learn(self, inputs: Tensor) -> list[int]:
        sizes = choose_codebook_sizes(self.settings["codebook_sizes"], len(inputs))
        generator = torch.Generator().manual_seed(self.settings["seed"])
        residual = _sample(inputs, max(sizes) * self.settings["max_vectors_per_code"], generator)
        self.center = residual.mean(dim=0)
        self.codebooks = []
        for size in sizes:
            codebook = _cluster(residual, size, self.settings["num_iterations"], generator)
            residual = residual - codebook[nearest_codes(residual, codebook)]
            self.codebooks.append(codebook)
        return sizes


def _sample(vectors: Tensor, num_vectors: int, generator: torch.Generator) -> Tensor:
    if len(vectors) <= num_vectors:
        return vectors
    return vectors[torch.randperm(len(vectors), generator=generator)[:num_vectors].sort().values]


def _cluster(vectors: Tensor, num_codes: int, num_iterations: int, generator: torch.Generator) -> Tensor:
    """Return k-means centres, `[num_codes, dim]`: a k-means++ start by us, Lloyd's iterations by faiss."""
    import faiss  # not everywhere where models run

    clustering = faiss.Kmeans(
        vectors.shape[1],
        num_codes,
        niter=num_iterations,
        min_points_per_centroid=1,
        max_points_per_centroid=len(vectors),
    )
    clustering.train(vectors.numpy(), init_centroids=spread_start(vectors, num_codes, generator).numpy())
    return torch.from_numpy(np.array(clustering.centroids, dtype=np.float32))
