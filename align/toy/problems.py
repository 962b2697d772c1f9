"""The toy problems of DAS (arXiv 2501.05803, section 5.1) and a linear-Gaussian one: densities and rewards, defined here only.

All are read at temperature alpha = 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from align.toy.densities import Band, Density, Mixture, Product
from align.toy.reward import Quadratic


def gaussian() -> Mixture:
    """N((1, -2), 0.3 I)."""
    return Mixture.equal(torch.tensor([[1.0, -2.0]]), 0.3)


def gmm() -> Mixture:
    """Nine equal Gaussians of covariance 0.3 I on the grid {-4, 0, 4}^2, x running fastest."""
    side = torch.tensor([-4.0, 0.0, 4.0])
    y, x = torch.meshgrid(side.flip(0), side, indexing="ij")
    return Mixture.equal(torch.stack([x, y], dim=2).reshape(9, 2), 0.3)


def gmm2() -> Mixture:
    """Eight equal Gaussians of covariance 0.3 I at multiples of 45 degrees on the circle of radius 4."""
    angle = torch.arange(8, dtype=torch.float64) * (math.pi / 4)
    return Mixture.equal(4 * torch.stack([angle.cos(), angle.sin()], dim=1), 0.3)


def swiss_roll() -> Product:
    """(t cos t / 2, t sin t / 2, z) plus N(0, 0.3^2 I), t uniform on [1.5 pi, 4.5 pi], z uniform on [-3, 3]."""

    def roll(t: Tensor) -> Tensor:
        return torch.stack([t * t.cos() / 2, t * t.sin() / 2], dim=1)

    # The middle of the curve moves by 4.8 for each unit of t: nodes are 0.14 apart, half a deviation.
    return Product((Mixture.along(roll, 1.5 * math.pi, 4.5 * math.pi, 0.09, nodes=512), Band(3.0, 0.09)))


DENSITIES: Mapping[str, Callable[[], Density]] = {
    "gaussian": gaussian,
    "gmm": gmm,
    "gmm2": gmm2,
    "swiss_roll": swiss_roll,
}
REWARDS: Mapping[str, Quadratic] = {
    "toy_linear": Quadratic(slope=(1.0, -0.5), curvature=(0.0, 0.0), centre=(0.0, 0.0)),
    "toy_gmm": Quadratic(slope=(0.0, 0.0), curvature=(0.01, 1.0), centre=(0.0, 0.0)),
    "toy_gmm2": Quadratic(slope=(0.0, 0.0), curvature=(1.0, 0.1), centre=(0.0, 1.0)),
    "toy_swiss_roll": Quadratic(slope=(0.0,) * 3, curvature=(0.01, 0.01, 1.0), centre=(0.0,) * 3),
}
