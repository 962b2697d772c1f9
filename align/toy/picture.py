"""Coordinates as pictures and back, so that toy rewards are rewards like any other: they read pictures.

A picture is of one colour, channel c being x_c / 256 + 1/2 (1/2 where there is no x_c).  Within [0, 1] that holds
coordinates up to 128, beyond where every squared term of a toy reward is clamped; float32 keeps them to 8e-6.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

SPAN = 256.0


def to_pictures(x: Tensor, height: int, width: int) -> Tensor:
    """Points (P, D), D at most 3, as pictures (P, 3, height, width); differentiable, not clamped."""
    colours = F.pad(x, (0, 3 - x.shape[1])) / SPAN + 0.5
    return colours[:, :, None, None].expand(-1, -1, height, width)


def to_coordinates(pictures: Tensor, dimension: int) -> Tensor:
    """Points (P, dimension) float64 of pictures (P, 3, H, W): the mean colour."""
    return SPAN * (pictures[:, :dimension].double().mean(dim=(2, 3)) - 0.5)
