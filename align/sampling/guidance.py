"""How far the gradient moves a step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from align.sampling.objective import Terms
from align.sampling.state import Estimate


@dataclass(frozen=True)
class Guidance:
    """DyMO's step: against the gradient, as long as a share of the guidance correction.

    ``shift = -strength * coefficient * ||c|| * g / ||g||`` with c the classifier-free correction; all norms
    per particle in float32.  (The paper prints a Polyak step with ||eps||; the released code uses ||c||,
    which makes the length independent of the loss's scale.)

    Attributes:
        strength: common factor, at least 0; with 0 nothing is differentiated at all.
        coefficient: factor of each of the three phases.
    """

    strength: float
    coefficient: tuple[float, float, float]

    def shift(self, estimate: Estimate, terms: Terms) -> Tensor:
        """What to add to the kernel's mean, (P, C, h, w); zero where there is no gradient."""
        length = self.strength * self.coefficient[terms.phase]
        size = estimate.correction.float().flatten(1).norm(dim=1)
        norm = estimate.gradient_norm
        rho = torch.where(norm > 0, length * size / norm.clamp(min=1e-30), torch.zeros_like(norm))
        return -rho.view(-1, 1, 1, 1) * estimate.gradient
