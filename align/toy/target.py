"""What sampling should arrive at: the density tilted by a reward, p(x) exp(r(x) / alpha) / Z, in closed form.

The clamp of squared terms is left out: it lies 14 and more deviations away from everything that has mass.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from align.toy.densities import Band, Density, Mixture, Product
from align.toy.reward import Quadratic


@dataclass(frozen=True)
class Target:
    """A tilted density and the logarithm of Z = E_p[exp(r / alpha)]."""

    density: Density
    log_z: float


def tilted(density: Density, reward: Quadratic, temperature: float = 1.0) -> Target:
    """The target of a mixture, a band (by quadrature) or a product of them, and a reward of as many axes; alpha is above 0."""
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
