"""DNO's hybrid gradient: the reward's slope by finite differences among pictures, for rewards without a gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from align.sampling.noise import Noise, Renamed
from align.sampling.state import per_row

SMALL = 1e-3
"""What is added to the norm of a slope before it divides it, of pictures about [-1, 1] as published."""


def neighbour(noise: Noise, number: int, iteration: int) -> Noise:
    """By what neighbour ``number`` is moved at an iteration, of a picture's own noise."""
    return Renamed(noise, f", neighbour {number} of {iteration}")


def direction(neighbours: Tensor, values: Tensor, pictures: Tensor, base: Tensor) -> Tensor:
    """How the loss, minus the reward, rises with the picture, as far as neighbours tell: sum_i (loss_i - loss_0)(y_i - y_0).

    ``neighbours`` are (P, q, 3, H, W) decoded pictures, about [0, 1], of ``values`` (P, q), beside ``pictures`` (P, 3, H, W) of values ``base``
    (P,); y = 2 p - 1 of a picture p.  A neighbour whose value is not finite is left out.
    """
    rise = base[:, None] - values
    known = torch.isfinite(rise)
    moved = 2 * (neighbours - pictures[:, None])
    each = rise[:, :, None, None, None] * moved
    return torch.where(known[:, :, None, None, None], each, 0).sum(dim=1)


def surrogate(neighbours: Tensor, values: Tensor, pictures: Tensor, base: Tensor) -> Tensor:
    """What is carried back in place of the reward's gradient, by decoded pictures: (P, 3, H, W), as ``direction``."""
    slope = direction(neighbours, values, pictures, base)
    # By y = 2 p - 1 it is of about norm 1, by p twice that.
    return 2 * slope / (per_row(slope.flatten(1).norm(dim=1), slope) + SMALL)
