"""A transition kernel of the reverse process."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Gaussian:
    """Isotropic Gaussian over latents: ``mean`` (P, ...), ``std`` a scalar >= 0 shared by all elements."""

    mean: Tensor
    std: float

    def sample(self, noise: Tensor) -> Tensor:
        """``mean + std * noise``; ``noise`` (P, ...) standard normal."""
        return self.mean + self.std * noise

    def shifted(self, shift: Tensor) -> Gaussian:
        """The same Gaussian moved by ``shift`` (P, ...)."""
        return Gaussian(self.mean + shift, self.std)

    def log_ratio(self, proposal: Gaussian, noise: Tensor) -> Tensor:
        """Log p(z) - log q(z) at z = ``proposal.sample(noise)``, this being p: (P,) float64.

        With d the difference of the means it is -<d, noise> / std - |d|^2 / (2 std^2): the densities themselves are
        large numbers whose difference float32 does not hold.

        Raises:
            ValueError: the kernel is deterministic (``std`` 0), so there is no density.
        """
        if self.std == 0:
            raise ValueError("a deterministic kernel (eta=0) has no density")
        moved = (proposal.mean - self.mean).flatten(1)
        kind = torch.float32 if moved.device.type == "mps" else torch.float64
        moved, drawn = moved.to(kind) / self.std, noise.flatten(1).to(kind)
        return -(moved * drawn).sum(dim=1) - moved.square().sum(dim=1) / 2
