"""Residual k-means: each level's codebook is a k-means of what the levels before left over.

No network and one pass per level, so it is the learned tokenizer for very large catalogs (as in QARM, Luo et al., CIKM
2025; GAMER's RQ-KMeans). Unlike GAMER's release, a collision is repaired by the residual before the last level, not
after it.
"""

import torch
from torch import Tensor

from genrec.item_tokenizers.quantizers import residual_codes
from genrec.item_tokenizers.residual import ResidualTokenizer
from genrec.item_tokenizers.residual_kmeans import learn_codebooks
from genrec.item_tokenizers.sizes import AUTO, CodebookSizes, choose_codebook_sizes


class RQKMeansTokenizer(ResidualTokenizer):
    """Codes by residual k-means.

    The same vectors, seed and machine give the same codes. Vectors may be float32 or half precision, arrays, tensors
    or a memory map; they are read in chunks, so that fitting needs little more memory than they do (1.3 million vectors
    of 768 dimensions: less than 1 GB more).

    Args:
        codebook_sizes: One size per level, or `"auto"`: see `genrec.item_tokenizers.sizes.auto_codebook_sizes`.
        seed: Of the sample and the k-means starts.
        num_iterations: Lloyd iterations per level, a quarter of them in all dimensions: see `residual_kmeans`.
        max_vectors_per_code: Codebooks are learned from a sample of at most this many vectors per code of the largest
            one; None learns from all. Fewer is faster and describes new vectors worse: on synthetic text-like vectors
            of 768 dimensions, 128 lose 3 % more than 256, and 64 lose 7 % more.
        device: Where to learn and assign codes; None means a CUDA device if there is one, else the CPU.

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
        num_iterations: int = 20,
        max_vectors_per_code: int | None = 256,
        device: str | None = None,
    ) -> None:
        if num_iterations < 1 or (max_vectors_per_code is not None and max_vectors_per_code < 1):
            raise ValueError(
                "`num_iterations` and `max_vectors_per_code` must be at least 1 (or None, for all vectors), got "
                f"{num_iterations} and {max_vectors_per_code}."
            )
        super().__init__(
            codebook_sizes=codebook_sizes if isinstance(codebook_sizes, str) else list(codebook_sizes),
            seed=seed,
            num_iterations=num_iterations,
            max_vectors_per_code=max_vectors_per_code,
            device=device,
        )

    @torch.no_grad()
    def _learn(self, inputs: Tensor) -> list[int]:
        sizes = choose_codebook_sizes(self.settings["codebook_sizes"], len(inputs))
        generator = torch.Generator().manual_seed(self.settings["seed"])
        sample = self._sample(inputs, max(sizes), generator).to(self._device)
        codebooks, center = learn_codebooks(sample, sizes, self.settings["num_iterations"], generator)
        self.codebooks, self.center = [codebook.cpu() for codebook in codebooks], center.cpu()
        return sizes

    def _sample(self, vectors: Tensor, largest_size: int, generator: torch.Generator) -> Tensor:
        per_code = self.settings["max_vectors_per_code"]
        if per_code is None or len(vectors) <= per_code * largest_size:
            return vectors
        return vectors[torch.randperm(len(vectors), generator=generator)[: per_code * largest_size].sort().values]

    @torch.no_grad()
    def _ask(self, inputs: Tensor) -> Tensor:
        return residual_codes(inputs, [codebook.to(self._device) for codebook in self.codebooks]).cpu()

    @property
    def _device(self) -> str:
        return self.settings["device"] or ("cuda" if torch.cuda.is_available() else "cpu")
