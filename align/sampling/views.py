"""Randomly altered copies of a picture, so that guidance cannot please a reward with one view alone.

The policy of differentiable augmentation (Zhao et al. 2020, arXiv 2006.10738) that DyMO's released code uses, in its order:
brightness, saturation, contrast, translation, resize, cutout.  It works on [-1, 1], where the zero that fills what is cut
away is mid-grey.  The resize keeps the picture's own proportions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

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
    x = translate(x, draws.row, draws.column)
    x = torch.stack([resize(copies, float(u)) for copies, u in zip(x, draws.resize[:, 0], strict=True)])
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


def translate(x: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Each copy of (P, V, 3, H, W) read from a place a few pixels aside, zero outside the picture."""
    height, width = x.shape[-2:]
    down, right = shift_range(height), shift_range(width)
    first = (row * (2 * down + 1)).long().tolist()
    left = (column * (2 * right + 1)).long().tolist()
    wide = F.pad(x, (right, right, down, down))
    cut = [
        wide[p, v, :, first[p][v] : first[p][v] + height, left[p][v] : left[p][v] + width]
        for p in range(x.shape[0])
        for v in range(x.shape[1])
    ]
    return torch.stack(cut).view_as(x)


def resize(x: Tensor, u: float) -> Tensor:
    """Copies (V, 3, H, W) scaled by 0.8 + 0.4 u, zero-padded or cropped in the middle to their old size."""
    height, width = x.shape[-2:]
    ratio = 0.8 + 0.4 * u
    tall, wide = int(ratio * height), int(ratio * width)
    x = F.interpolate(x, size=(tall, wide), mode="bilinear", align_corners=False)
    if ratio < 1:
        top, left = (height - tall) // 2, (width - wide) // 2
        return F.pad(x, (left, width - wide - left, top, height - tall - top))
    top, left = (tall - height) // 2, (wide - width) // 2
    return x[..., top : top + height, left : left + width]


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
        return (place >= first.clamp(0, side - 1)[..., None]) & (place <= last[..., None])

    rows, columns = inside(row, x.shape[-2]), inside(column, x.shape[-1])
    hole = rows[:, :, None, :, None] & columns[:, :, None, None, :]
    return x.masked_fill(hole.to(x.device), 0.0)
