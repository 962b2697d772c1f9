"""DyMO's preference loss as it was released."""

from __future__ import annotations

import torch
from torch import Tensor

from align.sampling.objective import Objective


class SignBlindObjective(Objective):
    """L_R = -sqrt(sum s^2) of the views' scores (quirk ``sign_blind``).

    It is the right loss while scores are equal and positive, and raises the size of a negative one.
    """

    def view_losses(self, scores: Tensor) -> Tensor:
        return scores.square() / 2

    def over_views(self, total: Tensor, number: int) -> tuple[Tensor, Tensor]:
        norm = (2 * total).sqrt()
        return -norm, torch.where(norm > 0, -1 / norm.clamp(min=1e-30), torch.zeros_like(norm))
