"""Randomly altered copies of a picture, so that guidance cannot please a reward with one view alone.

The policy of differentiable augmentation (Zhao et al. 2020, arXiv 2006.10738) that DyMO's released code uses, in its order:
brightness, saturation, contrast, translation, resize, cutout.  It works on [-1, 1], where the zero that fills what is cut
away is mid-grey.  The resize keeps the picture's own proportions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from align.rewards.resample import axis, product

SHIFT, CUT = 0.125, 0.5
"""Largest translation and side of the box that is cut out, as shares of the picture's sides."""


@dataclass(frozen=True)
class ViewDraws:
    """Uniform numbers in [0, 1) that decide V copies of each of P pictures; on the CPU, so reading them is no sync.

    Attributes:
        brightness, saturation, contrast: (P, V).
        row, column: (P, V), of the translation.
        resize: (P, 1), one for all copies of a picture.
        cut_row, cut_column: (P, V), of the centre of the box.
    """

    brightness: Tensor
    saturation: Tensor
    contrast: Tensor
    row: Tensor
    column: Tensor
    resize: Tensor
    cut_row: Tensor
    cut_column: Tensor

    @staticmethod
    def of(uniform: Callable[[str, int], Tensor], copies: int) -> ViewDraws:
        """Draw: ``uniform(purpose, n)`` gives (P, n) numbers."""
        names = [field.name for field in fields(ViewDraws)]
        return ViewDraws(**{name: uniform(name, 1 if name == "resize" else copies) for name in names})

    def take(self, rows: Tensor) -> ViewDraws:
        """Those of some pictures."""
        return ViewDraws(**{field.name: getattr(self, field.name)[rows.cpu()] for field in fields(self)})

    def copies(self, some: slice) -> ViewDraws:
        """Those of some copies."""
        parts = {field.name: getattr(self, field.name)[:, some] for field in fields(self)}
        return ViewDraws(**{**parts, "resize": self.resize})


def views(pictures: Tensor, draws: ViewDraws) -> Tensor:
    """Copies of (P, 3, H, W) pictures in about [0, 1] (not clamped): (P, V, 3, H, W)."""
    number = draws.row.shape[1]
    x = (2 * pictures - 1)[:, None].expand(-1, number, -1, -1, -1)
    x = colour(x, draws)
    x = move(x, draws.row, draws.column, draws.resize)
    x = cutout(x, draws.cut_row, draws.cut_column)
    return (x + 1) / 2


def colour(x: Tensor, draws: ViewDraws) -> Tensor:
    """Brightness, saturation and contrast of (P, V, 3, H, W)."""

    def factor(u: Tensor) -> Tensor:
        return u.to(x)[:, :, None, None, None]

    x = x + (factor(draws.brightness) - 0.5)
    grey = x.mean(dim=2, keepdim=True)
    x = (x - grey) * (2 * factor(draws.saturation)) + grey
    mean = x.mean(dim=(2, 3, 4), keepdim=True)
    return (x - mean) * (factor(draws.contrast) + 0.5) + mean


def shift_range(side: int) -> int:
    """Largest translation of a picture's side in pixels."""
    return int(SHIFT * side + 0.5)


def move(x: Tensor, row: Tensor, column: Tensor, resize: Tensor) -> Tensor:
    """Copies (P, V, 3, H, W) read from places a few pixels aside, then scaled by 0.8 + 0.4 u; zero is beyond the picture.

    Scaled copies are padded or cropped in the middle to their old size.
    """
    rows, columns = (
        moving(shift, resize, side, x.device) for shift, side in ((row, x.shape[-2]), (column, x.shape[-1]))
    )
    return product(x.flatten(0, 1), rows, columns).view_as(x)


def moving(shift: Tensor, resize: Tensor, side: int, device: torch.device) -> Tensor:
    """The matrices (P V, side, side) of an axis that move copies by (P, V) draws and scale them by (P, 1) draws."""
    most = shift_range(side)
    # Scaling reads pixel j of what was moved by m where it stood before, which is pixel j + m.
    source = torch.arange(side) - (shift * (2 * most + 1)).long()[..., None] + most
    found, there = source.clamp(0, side - 1).to(device), ((source >= 0) & (source < side)).to(device)
    scaling = torch.stack([_scaling(side, float(u), device) for u in resize[:, 0]])
    # (P, V, side, side), of which each column is one of the scaling's, or zero
    taken = (
        scaling[:, None]
        .expand(-1, shift.shape[1], -1, -1)
        .gather(3, found[:, :, None].expand(-1, -1, side, -1))
    )
    return taken.masked_fill(~there[:, :, None], 0.0).flatten(0, 1)


def _scaling(side: int, u: float, device: torch.device) -> Tensor:
    """The matrix (side, side) of an axis that scales it by 0.8 + 0.4 u."""
    scaled = int((0.8 + 0.4 * u) * side)
    first = (scaled - side) // 2 if scaled >= side else -((side - scaled) // 2)
    return axis(side, scaled, side, first, "bilinear", False, device)


def centres(side: int) -> int:
    """How many places the centre of the box can have along a side."""
    return side + 1 - int(CUT * side + 0.5) % 2


def cutout(x: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """A box of each copy of (P, V, 3, H, W) set to zero; at the border it shrinks to at least a line."""

    def inside(u: Tensor, side: int) -> Tensor:
        box = int(CUT * side + 0.5)
        first = (u * centres(side)).long() - box // 2
        place = torch.arange(side)
        last = (first + box - 1).clamp(0, side - 1)
        return ((place >= first.clamp(0, side - 1)[..., None]) & (place <= last[..., None])).to(x.device)

    rows, columns = inside(row, x.shape[-2]), inside(column, x.shape[-1])
    hole = rows[:, :, None, :, None] & columns[:, :, None, None, :]
    return x.masked_fill(hole, 0.0)
