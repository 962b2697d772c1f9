"""Rewards of coordinates that keep a Gaussian mixture a Gaussian mixture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CLAMP = 10_000.0
"""Largest value of a squared term, so that samplers that diverge have a reward to report."""


@dataclass(frozen=True)
class Quadratic:
    """r(x) = sum over axes i of slope_i x_i - curvature_i (x_i - centre_i)^2, squares clamped at 10 000.

    Attributes:
        slope, curvature, centre: a number for each of D axes, curvatures at least 0.
    """

    slope: tuple[float, ...]
    curvature: tuple[float, ...]
    centre: tuple[float, ...]

    @property
    def dimension(self) -> int:
        return len(self.slope)

    def __call__(self, x: Tensor) -> Tensor:
        x = x.double()
        slope, curvature, centre = self.tensors(x.device)
        return (slope * x - curvature * (x - centre).square().clamp(max=CLAMP)).sum(dim=1)

    def tensors(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        slope, curvature, centre = torch.tensor(
            [self.slope, self.curvature, self.centre], dtype=torch.float64, device=device
        )
        return slope, curvature, centre

    def axes(self, start: int, stop: int) -> Quadratic:
        """The part of the sum over axes ``start`` to ``stop`` - 1."""
        return Quadratic(self.slope[start:stop], self.curvature[start:stop], self.centre[start:stop])

    def __str__(self) -> str:
        terms = []
        for name, slope, curvature, centre in zip(
            "xyz", self.slope, self.curvature, self.centre, strict=False
        ):
            if slope:
                terms.append(f"{slope:+g} {name}")
            if curvature:
                terms.append(f"{-curvature:+g} ({name} - {centre:g})^2")
        return " ".join(terms)
