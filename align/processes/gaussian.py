"""A transition kernel of the reverse process."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Gaussian:
    """Isotropic Gaussian over latents: ``mean`` (P, C, h, w), ``std`` a scalar >= 0 shared by all elements."""

    mean: Tensor
    std: float

    def sample(self, noise: Tensor) -> Tensor:
        """``mean + std * noise``; ``noise`` (P, C, h, w) standard normal."""
        return self.mean + self.std * noise

    def shifted(self, shift: Tensor) -> Gaussian:
        """The same Gaussian moved by ``shift`` (P, C, h, w)."""
        return Gaussian(self.mean + shift, self.std)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of ``z`` (P, C, h, w), summed over elements in float32: (P,).

        Raises:
            ValueError: the kernel is deterministic (``std`` 0), so there is no density.
        """
        if self.std == 0:
            raise ValueError("a deterministic kernel (eta=0) has no density")
        scaled = (z.float() - self.mean.float()) / self.std
        constant = math.log(self.std) + 0.5 * math.log(2 * math.pi)
        return (-0.5 * scaled.square() - constant).flatten(1).sum(dim=1)


def renoise(z_next: Tensor, ratio: float, noise: Tensor) -> Tensor:
    """One forward step of the diffusion: ``sqrt(ratio) z_next + sqrt(1 - ratio) noise``.

    Args:
        z_next: latents (P, C, h, w) at the cleaner level.
        ratio: abar_t / abar_t', in (0, 1].
        noise: standard normal, same shape.
    """
    return ratio**0.5 * z_next + (1 - ratio) ** 0.5 * noise
