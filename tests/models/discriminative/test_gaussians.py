"""Products and distances of Gaussians: by hand, by densities, and by sampling's closed form."""

import torch
from torch.distributions import Normal

from genrec.models.discriminative.gaussians import (
    Gaussian,
    coordinates,
    positive,
    product,
    self_adaptive_product,
    wasserstein,
)


def draw(*shape: int, seed: int = 0) -> Gaussian:
    generator = torch.Generator().manual_seed(seed)
    return Gaussian(torch.randn(shape, generator=generator), 0.2 + torch.rand(shape, generator=generator))


def test_the_self_adaptive_product_by_hand():
    """mean = (c1 m2 + c2 m1) / (c1 + c2), variance = 2 c1 c2 / (c1 + c2)."""
    first = Gaussian(torch.tensor([2.0, -1.0]), torch.tensor([1.0, 4.0]))
    second = Gaussian(torch.tensor([6.0, 5.0]), torch.tensor([3.0, 4.0]))
    mean, variance = self_adaptive_product(first, second)
    torch.testing.assert_close(mean, torch.tensor([(1 * 6 + 3 * 2) / 4, (4 * 5 + 4 * -1) / 8]))
    torch.testing.assert_close(variance, torch.tensor([2 * 3 / 4, 2 * 16 / 8]))


def test_a_product_of_three_is_proportional_to_the_product_of_their_densities():
    parts = [draw(4, seed=seed) for seed in range(3)]
    mean, variance = product(*parts)
    points = torch.linspace(-2, 2, 9)[:, None]
    logs = sum(Normal(part.mean, part.variance.sqrt()).log_prob(points) for part in parts)
    offsets = logs - Normal(mean, variance.sqrt()).log_prob(points)
    torch.testing.assert_close(offsets, offsets[:1].expand_as(offsets), atol=1e-4, rtol=1e-4)


def test_the_order_of_factors_does_not_matter():
    parts = [draw(3, seed=seed) for seed in range(3)]
    for one, other in zip(product(*parts), product(*reversed(parts))):
        torch.testing.assert_close(one, other)


def test_the_distance_by_hand():
    """(1 - 4)^2 + (2 - 2)^2 + (sqrt 4 - sqrt 9)^2 + (sqrt 1 - sqrt 16)^2 = 9 + 0 + 1 + 9."""
    first = Gaussian(torch.tensor([1.0, 2.0]), torch.tensor([4.0, 1.0]))
    second = Gaussian(torch.tensor([4.0, 2.0]), torch.tensor([9.0, 16.0]))
    assert wasserstein(first, second).item() == 19
    assert wasserstein(second, first).item() == 19
    assert wasserstein(first, first).item() == 0


def test_it_is_the_mean_squared_distance_of_quantiles():
    """In one dimension the optimal transport takes each quantile to the same quantile."""
    first, second = draw(1, seed=1), draw(1, seed=2)
    shares = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    quantiles = [Normal(part.mean.double(), part.variance.double().sqrt()).icdf(shares) for part in (first, second)]
    expected = (quantiles[0] - quantiles[1]).square().mean()
    torch.testing.assert_close(wasserstein(first, second).double(), expected, atol=1e-3, rtol=1e-3)


def test_coordinates_are_means_and_standard_deviations():
    assert coordinates(Gaussian(torch.tensor([5.0]), torch.tensor([9.0]))).tolist() == [5.0, 3.0]


def test_variances_are_positive_and_have_gradients_that_are_finite():
    values = torch.tensor([-100.0, -1.0, 0.0, 3.0], requires_grad=True)
    variances = positive(values)
    assert (variances > 0).all()
    (variances.sqrt().sum() + (1 / variances).sum()).backward()
    assert values.grad is not None
    assert torch.isfinite(values.grad).all()
