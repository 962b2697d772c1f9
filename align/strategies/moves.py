"""How one picture's noise is moved against a gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Sphere(torch.optim.Optimizer):
    """Moves by ``rate`` times the norm along the gradient, and back to the same norm, in the noise as a whole."""

    def __init__(self, leaves: list[Tensor], rate: float) -> None:
        super().__init__(leaves, {"rate": rate})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for leaf in group["params"]:
                size, length = leaf.norm(), leaf.grad.norm()
                # Without a slope there is nowhere to go.
                moved = leaf - group["rate"] * size * leaf.grad / length.clamp(
                    min=torch.finfo(leaf.dtype).tiny
                )
                leaf.copy_(torch.where(length > 0, moved * (size / moved.norm()), leaf))


def clipped(gradient: Tensor, most: float) -> Tensor:
    """A gradient of norm ``most`` at most, as ``torch.nn.utils.clip_grad_norm_``; 0 leaves it as it is."""
    if most == 0:
        return gradient
    factor: Tensor = most / (gradient.norm() + 1e-6)
    return gradient * factor.clamp(max=1)
