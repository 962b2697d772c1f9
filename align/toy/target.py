"""What sampling should arrive at: the density tilted by a reward, p(x) exp(r(x) / alpha) / Z, in closed form.

The clamp of squared terms is left out: it lies 14 and more deviations away from everything that has mass.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from align.processes.base import Process
from align.toy.densities import Band, Density, Mixture, Product
from align.toy.reward import Quadratic


@dataclass(frozen=True)
class Target:
    """A tilted density and the logarithm of Z = E_p[exp(r / alpha)]."""

    density: Density
    log_z: float


def tilted(density: Density, reward: Quadratic, temperature: float = 1.0) -> Target:
    """The target of a density and a reward.

    Args:
        density: a mixture, a band or a product of them; a band becomes a mixture by quadrature.
        reward: of as many axes.
        temperature: alpha, above 0.
    """
    if isinstance(density, Product):
        parts = [tilted(part, own, temperature) for part, own in _by_part(density, reward)]
        return Target(Product(tuple(part.density for part in parts)), sum(part.log_z for part in parts))
    mixture = _mixture(density)
    slope, curvature, centre = (part / temperature for part in reward.tensors(mixture.means.device))
    centre = centre * temperature
    # Per axis and component, N(x; m, v) exp(l x - k (x - c)^2) is e^E N(x; m', v') with:
    variance = 1 / (1 / mixture.variance + 2 * curvature)
    means = variance * (mixture.means / mixture.variance + 2 * curvature * centre + slope)
    exponents = (
        (variance / mixture.variance).log() / 2
        + means.square() / (2 * variance)
        - mixture.means.square() / (2 * mixture.variance)
        - curvature * centre.square()
    ).sum(dim=1)
    log_weights = mixture.log_weights + exponents
    log_z = torch.logsumexp(log_weights, dim=0)
    return Target(Mixture(log_weights - log_z, means, variance), float(log_z))


def expected_reward(density: Density, reward: Quadratic) -> float:
    """E[r(x)] under a density."""
    if isinstance(density, Product):
        return sum(expected_reward(part, own) for part, own in _by_part(density, reward))
    mixture = _mixture(density)
    slope, curvature, centre = reward.tensors(mixture.means.device)
    squares = (mixture.means - centre).square() + mixture.variance
    return float(mixture.weights @ (slope * mixture.means - curvature * squares).sum(dim=1))


def sampled_gaussian(process: Process, density: Mixture) -> Mixture:
    """What plain sampling of a single Gaussian arrives at with a process's steps, as they are finitely many.

    With the exact denoiser the chain is linear, so the result is a Gaussian too: a mean m and a variance v become
    c m + b and c^2 v + sigma^2 from step to step, from standard normal noise on.

    Raises:
        ValueError: the density is a mixture of several Gaussians.
    """
    if len(density.means) != 1:
        raise ValueError("only a single Gaussian stays one in finitely many steps")
    mean: Tensor = torch.zeros_like(density.means)
    variance: Tensor = torch.ones_like(density.variance)
    for step in process.steps:
        noisy = density.noised(step.a, step.s)
        # x0 = mu + a v (z - a mu) / noisy.variance and eps = s (z - a mu) / noisy.variance: both linear in z.
        by_x0, by_eps = step.a * density.variance / noisy.variance, step.s / noisy.variance
        factor = process.kernel(by_x0, by_eps, step).mean
        mean = factor * (mean - noisy.means) + step.a_next * density.means
        variance = factor.square() * variance + step.std**2
    return Mixture(density.log_weights, mean, variance)


def _by_part(density: Product, reward: Quadratic) -> list[tuple[Density, Quadratic]]:
    found, start = [], 0
    for part in density.parts:
        found.append((part, reward.axes(start, start + part.dimension)))
        start += part.dimension
    return found


def _mixture(density: Density) -> Mixture:
    if isinstance(density, Band):
        return density.mixture()
    if not isinstance(density, Mixture):
        raise TypeError(f"{type(density).__name__} has no closed-form target")
    return density
