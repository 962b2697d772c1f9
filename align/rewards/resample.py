"""Resizing, cropping, padding and moving a picture as products with one matrix an axis.

torch's own backward passes of bilinear and bicubic resizing add up in any order on a GPU; a product does not, and its own
backward pass is another product.  The numbers of a matrix are what torch makes of unit vectors, so both agree to float32's
rounding.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Mode = Literal["bilinear", "bicubic"]
BLOCK = 2**22
"""Numbers that are resized together while a matrix is made."""


@lru_cache(maxsize=32)
def axis(
    source: int, scaled: int, size: int, first: int, mode: Mode, antialias: bool, device: torch.device
) -> Tensor:
    """What brings an axis of ``source`` pixels to ``scaled``, and then to ``size`` of these from number ``first`` on.

    What lies beyond the scaled picture is zero.  Returns (size, source) float32.
    """
    # On CUDA it is made there, as the host has enough to do; elsewhere torch may lack a way to resize.
    made = torch.eye(source, device=device if device.type == "cuda" else None)
    if scaled != source:
        parts = torch.split(made, max(1, BLOCK // source), dim=1)
        made = torch.cat([_resized(part, scaled, mode, antialias) for part in parts], dim=1)
    made = F.pad(made, (0, 0, -first, first + size - scaled))
    # Of a leaf's kind, whatever the grad mode of the first who asks.
    return made.to(device).detach()


def _resized(columns: Tensor, scaled: int, mode: Mode, antialias: bool) -> Tensor:
    """(source, n) to (scaled, n)."""
    size = (scaled, columns.shape[1])
    made: Tensor = F.interpolate(
        columns[None, None], size=size, mode=mode, align_corners=False, antialias=antialias
    )
    return made[0, 0]


def product(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pictures (P, 3, H, W) with matrices (h, H) and (w, W), or one of each for every picture, as (P, 3, h, w)."""
    return _across(_across(x, columns).mT, rows).mT


def _across(x: Tensor, matrix: Tensor) -> Tensor:
    """(P, 3, H, W) by (w, W) or (P, w, W), as (P, 3, H, w)."""
    return (x.flatten(1, 2) @ matrix.mT).view(*x.shape[:3], -1)
