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
from align.sampling.host import send

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
        return ViewDraws(*(getattr(self, field.name)[rows] for field in fields(self)))

    def copies(self, some: slice) -> ViewDraws:
        parts = {field.name: getattr(self, field.name)[:, some] for field in fields(self)}
        return ViewDraws(**{**parts, "resize": self.resize})


@dataclass(frozen=True)
class Alterations:
    """What V copies of each of P pictures are altered by: tensors on the pictures' device.

    Attributes:
        brightness, saturation, contrast: (P, V, 1, 1, 1).
        rows, columns: (P V, H, H) and (P V, W, W), which move and scale.
        hole: (P, V, 1, H, W) bool, where the box is cut out.
    """

    brightness: Tensor
    saturation: Tensor
    contrast: Tensor
    rows: Tensor
    columns: Tensor
    hole: Tensor

    @staticmethod
    def of(draws: ViewDraws, pictures: Tensor) -> Alterations:
        height, width = pictures.shape[-2:]
        brightness, saturation, contrast = (
            send(one.to(pictures.dtype), pictures.device)[:, :, None, None, None]
            for one in (draws.brightness, draws.saturation, draws.contrast)
        )
        return Alterations(
            brightness,
            saturation,
            contrast,
            moving(draws.row, draws.resize, height, pictures.device),
            moving(draws.column, draws.resize, width, pictures.device),
            hole(draws.cut_row, draws.cut_column, height, width, pictures.device),
        )


def views(pictures: Tensor, draws: ViewDraws) -> Tensor:
    """Copies of (P, 3, H, W) pictures in about [0, 1] (not clamped): (P, V, 3, H, W)."""
    return altered(pictures, Alterations.of(draws, pictures))


def altered(pictures: Tensor, by: Alterations) -> Tensor:
    """The arithmetic of ``views``, which reads no number on the host: one graph for a compiler."""
    number = by.hole.shape[1]
    x = (2 * pictures - 1)[:, None].expand(-1, number, -1, -1, -1)
    x = x + (by.brightness - 0.5)
    grey = x.mean(dim=2, keepdim=True)
    x = (x - grey) * (2 * by.saturation) + grey
    mean = x.mean(dim=(2, 3, 4), keepdim=True)
    x = (x - mean) * (by.contrast + 0.5) + mean
    x = product(x.flatten(0, 1), by.rows, by.columns).view_as(x)
    return (x.masked_fill(by.hole, 0.0) + 1) / 2


def shift_range(side: int) -> int:
    """Largest translation of a picture's side in pixels."""
    return int(SHIFT * side + 0.5)


def moving(shift: Tensor, resize: Tensor, side: int, device: torch.device) -> Tensor:
    """The matrices (P V, side, side) of an axis that read it a few pixels aside, by draws (P, V), then scale it by 0.8 + 0.4 u,
    draws (P, 1); zero is beyond the picture.  Scaled copies are padded or cropped in the middle to their old size.
    """
    most = shift_range(side)
    # Scaling reads pixel j of what was moved by m where it stood before, which is pixel j + m.
    source = torch.arange(side) - (shift * (2 * most + 1)).long()[..., None] + most
    found, there = send(source.clamp(0, side - 1), device), send((source >= 0) & (source < side), device)
    scaling = torch.stack([_scaling(side, float(u), device) for u in resize[:, 0]])
    # (P, V, side, side), of which each column is one of the scaling's, or zero
    wide = scaling[:, None].expand(-1, shift.shape[1], -1, -1)
    taken = wide.gather(3, found[:, :, None].expand_as(wide))
    return taken.masked_fill(~there[:, :, None], 0.0).flatten(0, 1)


def _scaling(side: int, u: float, device: torch.device) -> Tensor:
    scaled = int((0.8 + 0.4 * u) * side)
    first = (scaled - side) // 2 if scaled >= side else -((side - scaled) // 2)
    return axis(side, scaled, side, first, "bilinear", False, device)


def centres(side: int) -> int:
    """How many places the centre of the box can have along a side."""
    return side + 1 - int(CUT * side + 0.5) % 2


def hole(row: Tensor, column: Tensor, height: int, width: int, device: torch.device) -> Tensor:
    """Where the box of each copy is, (P, V, 1, H, W) bool; at the border it shrinks to at least a line."""

    def inside(u: Tensor, side: int) -> Tensor:
        box = int(CUT * side + 0.5)
        first = (u * centres(side)).long() - box // 2
        place = torch.arange(side)
        last = (first + box - 1).clamp(0, side - 1)
        return send((place >= first.clamp(0, side - 1)[..., None]) & (place <= last[..., None]), device)

    return inside(row, height)[:, :, None, :, None] & inside(column, width)[:, :, None, None, :]
