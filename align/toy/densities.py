"""Densities that stay in closed form under the noise of a diffusion process.

If x0 has density p, then z = a x0 + s n with n standard normal has ``p.noised(a, s)``, whose score is all that a denoiser
needs.  Everything is float64 and differentiable with respect to x.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.special import log_ndtr

HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


class Density(Protocol):
    """A probability density on R^D."""

    @property
    def dimension(self) -> int:
        """D."""

    def noised(self, a: float, s: float) -> Density:
        """The density of a x0 + s n; with 1 and 0 the density itself."""

    def log_prob(self, x: Tensor) -> Tensor:
        """(P,) log-densities of points (P, D)."""

    def score(self, x: Tensor) -> Tensor:
        """(P, D) gradients of the log-density at points (P, D)."""

    def sample(self, number: int, generator: torch.Generator) -> Tensor:
        """Independent draws (number, D) on the CPU."""

    def to(self, device: torch.device) -> Density:
        """The same on another device."""


@dataclass(frozen=True)
class Mixture:
    """Gaussians of one common, axis-parallel covariance.

    Attributes:
        log_weights: (K,), normalised.
        means: (K, D).
        variance: (D,), of every component along each axis.
    """

    log_weights: Tensor
    means: Tensor
    variance: Tensor

    @staticmethod
    def equal(means: Tensor, variance: float) -> Mixture:
        """Components of equal weight at ``means`` (K, D) and the same variance along all axes."""
        number, dimension = means.shape
        weights = torch.full((number,), -math.log(number), dtype=torch.float64)
        return Mixture(weights, means.double(), torch.full((dimension,), variance, dtype=torch.float64))

    @staticmethod
    def along(
        curve: Callable[[Tensor], Tensor], low: float, high: float, variance: float, nodes: int
    ) -> Mixture:
        """Gaussian noise around ``curve(t)``, t uniform on [low, high].

        The integral over t is Gauss-Legendre quadrature, so the density is a mixture over the nodes: exact up to a
        relative error of about exp(-2 pi^2 variance / h^2), h the distance of neighbouring nodes, at most
        (pi / 2) (high - low) |curve'| / nodes.
        """
        x, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(nodes))
        means = curve((low + high) / 2 + (high - low) / 2 * x)
        return Mixture(
            (weights / 2).log(), means, torch.full((means.shape[1],), variance, dtype=torch.float64)
        )

    @property
    def dimension(self) -> int:
        return self.means.shape[1]

    @property
    def weights(self) -> Tensor:
        return self.log_weights.exp()

    def mean(self) -> Tensor:
        return self.weights @ self.means

    def noised(self, a: float, s: float) -> Mixture:
        """See ``Density``: means shrink by a, the variance becomes a^2 v + s^2."""
        return Mixture(self.log_weights, a * self.means, a**2 * self.variance + s**2)

    def log_prob(self, x: Tensor) -> Tensor:
        constant = self.variance.log().sum() / 2 + self.dimension * HALF_LOG_TAU
        return torch.logsumexp(self._exponents(x), dim=1) - constant

    def score(self, x: Tensor) -> Tensor:
        """See ``Density``: towards the means, weighed by what each is responsible for."""
        responsible = torch.softmax(self._exponents(x), dim=1)
        return (responsible @ self.means - x) / self.variance

    def sample(self, number: int, generator: torch.Generator) -> Tensor:
        chosen = torch.multinomial(self.weights.cpu(), number, replacement=True, generator=generator)
        noise = torch.randn(number, self.dimension, dtype=torch.float64, generator=generator)
        return self.means.cpu()[chosen] + self.variance.cpu().sqrt() * noise

    def to(self, device: torch.device) -> Mixture:
        return Mixture(self.log_weights.to(device), self.means.to(device), self.variance.to(device))

    def _exponents(self, x: Tensor) -> Tensor:
        """(P, K) of each component, without its normalisation."""
        apart = x.double()[:, None] - self.means
        return self.log_weights - (apart.square() / (2 * self.variance)).sum(dim=2)


@dataclass(frozen=True)
class Band:
    """One coordinate, uniform on [-half, half] plus Gaussian noise of some variance."""

    half: float
    variance: float

    @property
    def dimension(self) -> int:
        return 1

    def noised(self, a: float, s: float) -> Band:
        return Band(a * self.half, a**2 * self.variance + s**2)

    def log_prob(self, x: Tensor) -> Tensor:
        """See ``Density``: (Phi((|x| + h) / s) - Phi((|x| - h) / s)) / (2 h)."""
        _, near, far = self._ends(x)
        return self._log_mass(near, far)[:, 0] - math.log(2 * self.half)

    def score(self, x: Tensor) -> Tensor:
        """See ``Density``: the difference of the normal densities at both ends over that of Phi."""
        side, near, far = self._ends(x)
        log_mass = self._log_mass(near, far)
        slope = (-near.square() / 2 - HALF_LOG_TAU - log_mass).exp()
        slope = slope - (-far.square() / 2 - HALF_LOG_TAU - log_mass).exp()
        return -side * slope / math.sqrt(self.variance)

    def sample(self, number: int, generator: torch.Generator) -> Tensor:
        uniform = torch.rand(number, 1, dtype=torch.float64, generator=generator)
        noise = torch.randn(number, 1, dtype=torch.float64, generator=generator)
        return self.half * (2 * uniform - 1) + math.sqrt(self.variance) * noise

    def to(self, device: torch.device) -> Band:
        return self

    def mixture(self, nodes: int = 128) -> Mixture:
        return Mixture.along(lambda t: t[:, None], -self.half, self.half, self.variance, nodes)

    def _ends(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sign of x, and the standardised distances from |x| to both ends; by symmetry no Phi is close to 1 far out."""
        x = x.double()
        side = torch.where(x < 0, -1.0, 1.0).to(x)
        deviation = math.sqrt(self.variance)
        return side, (self.half - side * x) / deviation, (-self.half - side * x) / deviation

    @staticmethod
    def _log_mass(near: Tensor, far: Tensor) -> Tensor:
        log_near: Tensor = log_ndtr(near)
        return log_near + torch.log(-torch.expm1(log_ndtr(far) - log_near))


@dataclass(frozen=True)
class Product:
    """Independent groups of coordinates, one after the other."""

    parts: tuple[Density, ...]

    @property
    def dimension(self) -> int:
        return sum(part.dimension for part in self.parts)

    def noised(self, a: float, s: float) -> Product:
        return Product(tuple(part.noised(a, s) for part in self.parts))

    def log_prob(self, x: Tensor) -> Tensor:
        return torch.stack([part.log_prob(own) for part, own in self.split(x)]).sum(dim=0)

    def score(self, x: Tensor) -> Tensor:
        return torch.cat([part.score(own) for part, own in self.split(x)], dim=1)

    def sample(self, number: int, generator: torch.Generator) -> Tensor:
        return torch.cat([part.sample(number, generator) for part in self.parts], dim=1)

    def to(self, device: torch.device) -> Product:
        return Product(tuple(part.to(device) for part in self.parts))

    def split(self, x: Tensor) -> list[tuple[Density, Tensor]]:
        columns = torch.split(x, [part.dimension for part in self.parts], dim=1)
        return list(zip(self.parts, columns, strict=True))
