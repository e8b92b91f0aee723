"""Gaussians with a diagonal covariance, as embeddings: their product and their distance.

PBAT (Su et al., MM 2023) embeds each thing as a Gaussian instead of a vector, and compares by distance instead of by
inner product. The covariance is kept as its diagonal, the variances.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

MIN_VARIANCE = 1e-6  # below it, precisions overflow and the square root has no useful gradient


class Gaussian(NamedTuple):
    """A batch of Gaussians with independent coordinates.

    Args:
        mean: `[..., width]`.
        variance: `[..., width]`, positive.
    """

    mean: Tensor
    variance: Tensor


def positive(values: Tensor) -> Tensor:
    """Return variances made of any numbers, `ELU(x) + 1`, in the shape of the argument.

    >>> positive(torch.tensor([2.0, 0.0])).tolist()
    [3.0, 1.0]
    """
    return (functional.elu(values) + 1).clamp(min=MIN_VARIANCE)


def product(first: Gaussian, *others: Gaussian) -> Gaussian:
    """Return the Gaussian to which the product of densities is proportional: precisions add up (of three, TriSAGP).

    Args:
        first: A factor, of any shape.
        *others: Further ones, of shapes that broadcast.

    >>> of_two = product(Gaussian(torch.tensor(0.0), torch.tensor(1.0)), Gaussian(torch.tensor(4.0), torch.tensor(1/3)))
    >>> of_two.mean.item(), of_two.variance.item()
    (3.0, 0.25)
    """
    precision, weighted = 1 / first.variance, first.mean / first.variance
    for other in others:
        precision, weighted = precision + 1 / other.variance, weighted + other.mean / other.variance
    return Gaussian(weighted / precision, 1 / precision)


def self_adaptive_product(first: Gaussian, second: Gaussian) -> Gaussian:
    """Return PBAT's SAGP: the product of two, with the harmonic mean of their variances, twice the product's.

    Args:
        first: A factor, of any shape.
        second: Another one, of a shape that broadcasts.
    """
    mean, variance = product(first, second)
    return Gaussian(mean, 2 * variance)


def coordinates(gaussian: Gaussian) -> Tensor:
    """Return the point `[..., 2 * width]` of means and standard deviations.

    The squared Euclidean distance of two such points is the squared 2-Wasserstein distance of the Gaussians.
    """
    return torch.cat([gaussian.mean, gaussian.variance.sqrt()], dim=-1)


def wasserstein(first: Gaussian, second: Gaussian) -> Tensor:
    """Return the squared 2-Wasserstein distance, `[...]`, of Gaussians `[..., width]`.

    >>> wasserstein(Gaussian(torch.zeros(1), torch.ones(1)), Gaussian(torch.ones(1), 9 * torch.ones(1))).item()
    5.0
    """
    return (coordinates(first) - coordinates(second)).square().sum(dim=-1)
