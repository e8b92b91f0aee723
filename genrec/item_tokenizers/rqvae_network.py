"""The RQ-VAE: an autoencoder whose middle is described by one codebook entry per level.

Zeghidour et al., "SoundStream", 2021 and Lee et al., "Autoregressive Image Generation using Residual Quantization",
CVPR 2022; for items: Rajput et al., "Recommender Systems with Generative Retrieval", NeurIPS 2023.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from genrec.item_tokenizers.quantizers import VECTORS_PER_CHUNK, sinkhorn_codes, squared_distances


class Balancing:
    """Sinkhorn balancing on chosen levels.

    Args:
        levels: Levels from 0; negative ones count from the last.
        epsilon: See `genrec.item_tokenizers.quantizers.sinkhorn_codes`.
        num_levels: Levels of a code.
    """

    def __init__(self, levels: Sequence[int], epsilon: float, num_levels: int) -> None:
        wrong = [level for level in levels if not -num_levels <= level < num_levels]
        if wrong:
            raise ValueError(
                f"`sinkhorn_levels` must name levels of a code with {num_levels} levels, from 0 or from -1 backwards, "
                f"got {wrong[0]}."
            )
        self.levels = {level % num_levels for level in levels}
        self.epsilon = epsilon

    def codes(self, distances: Tensor, level: int) -> Tensor:
        """Return the codes of a batch, `[batch]`: balanced on the chosen levels, nearest on the others."""
        return sinkhorn_codes(distances, self.epsilon) if level in self.levels else distances.argmin(dim=1)


class RQVAENetwork(nn.Module):
    """Encoder, codebooks and decoder.

    Args:
        input_dim: Dimensions of the items' vectors.
        hidden_dims: Widths of the encoder's hidden layers; the decoder mirrors them.
        latent_dim: Dimensions of the codebooks.
        codebook_sizes: One size per level.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self, input_dim: int, hidden_dims: Sequence[int], latent_dim: int, codebook_sizes: Sequence[int]
    ) -> None:
        super().__init__()
        widths = [input_dim, *hidden_dims, latent_dim]
        self.encoder = _perceptron(widths)
        self.decoder = _perceptron(widths[::-1])
        self.codebooks = nn.ParameterList(nn.Parameter(torch.zeros(size, latent_dim)) for size in codebook_sizes)
        self.register_buffer("mean", torch.zeros(input_dim))
        self.register_buffer("scale", torch.ones(()))

    def normalize_like(self, vectors: Tensor) -> None:
        """Learn to see these vectors, `[items, dim]`, centred and with variance 1 over all entries."""
        chunks = vectors.split(VECTORS_PER_CHUNK)
        self.mean.copy_(torch.stack([chunk.float().sum(dim=0) for chunk in chunks]).sum(dim=0) / len(vectors))
        squares = torch.stack([(chunk.float() - self.mean).square().sum() for chunk in chunks])
        spread = (squares.sum() / vectors.numel()).sqrt()
        self.scale.copy_(spread.where(spread > 0, 1.0))

    def encode(self, vectors: Tensor) -> Tensor:
        """Return latent points, `[items, latent_dim]`."""
        latent: Tensor = self.encoder((vectors - self.mean) / self.scale)
        return latent

    def decode(self, latent: Tensor) -> Tensor:
        """Return vectors, `[items, dim]`."""
        vectors: Tensor = self.decoder(latent) * self.scale + self.mean
        return vectors

    def quantize(self, latent: Tensor, balancing: Balancing) -> tuple[list[Tensor], list[Tensor]]:
        """Describe latent points level by level.

        Returns:
            What each level had to describe, `[items, latent_dim]` each, and the code it chose, `[items]` each.
            Gradients flow to the encoder through the first and never from one level's codebook to the next level.
        """
        residuals, codes = [latent], []
        for level, codebook in enumerate(self.codebooks):
            distances = squared_distances(residuals[-1].detach(), codebook.detach())
            codes.append(balancing.codes(distances, level))
            residuals.append(residuals[-1] - codebook.detach()[codes[-1]])
        return residuals[:-1], codes


def _perceptron(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(widths):
        layers += [nn.Linear(width_in, width_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
