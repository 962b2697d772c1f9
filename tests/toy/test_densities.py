"""Scores, noise levels and draws of the toy densities."""

import math

import pytest
import torch

from align.toy.densities import Band, Mixture
from align.toy.problems import DENSITIES

LEVELS = [(1.0, 0.0), (0.995, 0.1), (0.7, 0.3), (0.006, 0.99998)]


@pytest.fixture(params=list(DENSITIES), scope="module")
def density(request):
    return DENSITIES[request.param]()


def points(density, level, number=64):
    """Points where the density is, a few far outside, and the origin."""
    generator = torch.Generator().manual_seed(0)
    near = density.noised(*level).sample(number, generator)
    far = 12 * torch.randn(8, density.dimension, dtype=torch.float64, generator=generator)
    return torch.cat([near, far, torch.zeros(1, density.dimension, dtype=torch.float64)])


@pytest.mark.parametrize("level", LEVELS)
def test_the_score_is_the_gradient_of_the_log_density(density, level):
    noisy = density.noised(*level)
    x = points(density, level).requires_grad_()
    (expected,) = torch.autograd.grad(noisy.log_prob(x).sum(), x)
    torch.testing.assert_close(noisy.score(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("level", LEVELS)
def test_the_score_is_differentiable(density, level):
    noisy = density.noised(*level)
    x = points(density, level, number=3)[-12:].requires_grad_()
    assert torch.autograd.gradcheck(noisy.score, x, eps=1e-5, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("level", [LEVELS[0], LEVELS[2]])
def test_the_noised_density_is_that_of_noised_draws(density, level):
    """Means of smooth functions of draws, noised, against those of the noised density's own draws."""
    generator = torch.Generator().manual_seed(1)
    number = 200_000
    x0 = density.sample(number, generator)
    noise = torch.randn(x0.shape, dtype=torch.float64, generator=generator)
    noised = level[0] * x0 + level[1] * noise
    own = density.noised(*level).sample(number, generator)
    for x in (x0, noised, own):
        assert x.shape == (number, density.dimension)
    for statistic in (lambda x: x, torch.square, lambda x: torch.sin(2 * x)):
        one, two = statistic(noised), statistic(own)
        error = (one.var(0) / number + two.var(0) / number).sqrt()
        assert ((one.mean(0) - two.mean(0)).abs() < 4.5 * error).all()


@pytest.mark.parametrize("level", [(1.0, 0.0), (0.9, 0.4), (0.3, 0.95)])
def test_densities_integrate_to_one(density, level):
    """On a grid: spacing below the deviation makes sums exact; the roll's z by itself."""
    noisy = density.noised(*level)
    parts = getattr(noisy, "parts", (noisy,))
    for part in parts:
        side = torch.linspace(-12, 12, 121, dtype=torch.float64)
        grid = torch.cartesian_prod(*[side] * part.dimension).view(-1, part.dimension)
        total = part.log_prob(grid).exp().sum() * 0.2**part.dimension
        assert float(total) == pytest.approx(1, abs=1e-8)


def test_a_band_is_the_difference_of_error_functions_and_its_quadrature():
    band = Band(3.0, 0.09).noised(0.8, 0.5)
    x = torch.linspace(-5, 5, 41, dtype=torch.float64)[:, None]
    deviation = band.variance**0.5
    by_erf = [
        (
            math.erfc((abs(v) - band.half) / deviation / 2**0.5)
            - math.erfc((abs(v) + band.half) / deviation / 2**0.5)
        )
        / (4 * band.half)
        for v in x[:, 0].tolist()
    ]
    torch.testing.assert_close(band.log_prob(x).exp(), torch.tensor(by_erf, dtype=torch.float64))
    torch.testing.assert_close(band.mixture().log_prob(x), band.log_prob(x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(band.mixture().score(x), band.score(x), rtol=1e-8, atol=1e-8)


def test_a_band_far_out_falls_like_the_noise_at_its_end():
    """There Phi rounds to 1 on one side and to 0 on the other."""
    band = Band(3.0, 0.09)
    x = torch.tensor([[40.0], [-40.0]], dtype=torch.float64)
    torch.testing.assert_close(band.score(x), -(x - 3 * x.sign()) / 0.09, rtol=1e-3, atol=0)
    assert band.log_prob(x).isfinite().all()


def test_the_rolls_quadrature_has_nodes_enough():
    roll = DENSITIES["swiss_roll"]().parts[0]
    fine = Mixture.along(
        lambda t: torch.stack([t * t.cos() / 2, t * t.sin() / 2], dim=1),
        1.5 * math.pi,
        4.5 * math.pi,
        0.09,
        nodes=2000,
    )
    x = points(roll, LEVELS[0])[:64]
    torch.testing.assert_close(roll.log_prob(x), fine.log_prob(x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(roll.score(x), fine.score(x), rtol=1e-7, atol=1e-7)
