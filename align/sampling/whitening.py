"""From a direction to a vector of the same kind as a draw of N(0, I): a gradient that passes for noise.

``spectrum`` is the projection of GPER / WGNC (arXiv 2602.08646), ``ranks`` that of NTRK (arXiv 2606.18066), ``phases`` keeps a
gradient's phases alone.  Rows are computed one by one: the last bits of a transform depend on how many there are.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Whitening = Literal["phase", "wgnc", "order"]
BLOCK = 16
"""Frequencies of a block, or as many below it as cut the spectrum evenly."""
TILE, LEVEL, PASSES = 64, 0.9999, 3
"""Values of a tile, or as many below it as cut a row evenly; how likely each of a draw's ranks is within its bounds; passes over both bases."""
DENSITY = math.pi / 4
"""Squared mean over mean square of the magnitude of a complex normal number."""


def phases(x: Tensor, noise: Tensor) -> Tensor:
    """Vectors (P, C, ...) with the phases of ``x`` and the magnitudes of ``noise``, (P, C, ...), at each frequency of a channel."""
    axes = tuple(range(1, x.ndim - 1))

    def one(direction: Tensor, draw: Tensor) -> Tensor:
        seen, drawn = (torch.fft.rfftn(part.float(), dim=axes) for part in (direction, draw))
        found: Tensor = torch.fft.irfftn(drawn.abs() * seen.sgn(), s=x.shape[2:], dim=axes)
        return found

    return torch.stack([one(*pair) for pair in zip(x, noise, strict=True)]).to(x)


def block_size(entries: int) -> int:
    """How many of the ``entries`` / 2 frequencies make a block; 0 where there is no white spectrum."""
    half, odd = divmod(entries, 2)
    return 0 if odd else next((size for size in range(BLOCK, 1, -1) if half % size == 0), 0)


def spectrum(x: Tensor) -> Tensor:
    """The nearest vectors (P, ...) whose spectrum is white block by block, each row as one vector of an even number of entries.

    Magnitudes of a block of B neighbouring frequencies have the sum and the sum of squares that those of noise have on average,
    B sqrt(pi) / 2 and B.  A draw of noise hardly changes, a second projection changes nothing, the length of ``x`` does not count.

    Raises:
        ValueError: the number of entries has no such blocks.
    """
    kind = torch.float32 if x.device.type == "mps" else torch.float64
    rows = x.flatten(1).to(kind)
    if not block_size(rows.shape[1]):
        raise ValueError(f"latents of {rows.shape[1]} numbers have no spectrum that can be white")
    return torch.stack([_white(row) for row in rows]).view_as(x).to(x)


def _white(row: Tensor) -> Tensor:
    f = torch.fft.rfft(row, norm="ortho")
    # The two real ones are one complex number of the same variance as all others.
    ends = torch.complex(f[:1].real, f[-1:].real) / math.sqrt(2)
    y = torch.cat([ends, f[1:-1]]).view(-1, block_size(len(row)))
    y = (white_magnitudes(y.abs()) * y.sgn()).flatten()
    low, high = (math.sqrt(2) * torch.complex(end, torch.zeros_like(end)) for end in (y[:1].real, y[:1].imag))
    back: Tensor = torch.fft.irfft(torch.cat([low, y[1:], high]), n=len(row), norm="ortho")
    return back


def white_magnitudes(a: Tensor) -> Tensor:
    """The nearest (..., B) at least 0 with sum B sqrt(pi) / 2 and sum of squares B; of blocks of zeros they stay.

    All but the smallest are lowered by one number, and what is left is scaled: the number is found among the B there can be.
    """
    size = a.shape[-1]
    place = torch.arange(size, dtype=a.dtype, device=a.device)
    # Of equal ones all answers would be equally near: the first are the smaller ones.
    a = a * (1 + torch.finfo(a.dtype).eps ** 0.5 * place / size)
    top = a.sort(dim=-1, descending=True).values
    most, number = top[..., :1], place + 1
    beside = top - most  # which the differences below are as good as
    total, squares = beside.cumsum(-1), beside.square().cumsum(-1)
    enough = number > DENSITY * size
    share = DENSITY * size / torch.where(enough, number - DENSITY * size, 1.0)
    lowered = most + (total - (share * (number * squares - total.square()).clamp(min=0)).sqrt()) / number
    following = torch.cat([top[..., 1:], torch.full_like(most, -torch.inf)], dim=-1)
    fits = enough & (following <= lowered) & (lowered < top)
    kept = (a - lowered.gather(-1, fits.to(torch.uint8).argmax(-1, keepdim=True))).clamp(min=0)
    total = torch.where(fits.any(-1, keepdim=True), kept.sum(-1, keepdim=True), torch.inf)
    return math.sqrt(math.pi) / 2 * size * kept / total


def ranks(x: Tensor) -> Tensor:
    """Vectors (P, ...) of deviation 1 whose ranks are typical of it, as values and as frequencies.

    A row is cut into M tiles of D values.  The r-th smallest of the tiles' j-th smallest values has bounds between which it nearly always is
    in a draw, and goes to the nearer one where it is not: the nearest vector in the set of those that keep all bounds.  In turn of the row
    and of its Hartley transform, which is orthogonal and its own inverse.
    """
    rows = x.flatten(1).double().cpu()
    return torch.stack([_ranked(row) for row in rows]).view_as(x).to(x)


def _ranked(row: Tensor) -> Tensor:
    number = len(row)
    tile = next(size for size in range(min(TILE, number), 0, -1) if number % size == 0)
    low, high = (torch.from_numpy(one) for one in rank_bounds(number // tile, tile, LEVEL))
    for _ in range(2 * PASSES):
        row = bounded(hartley(_unit(row)).view(-1, tile), low, high).flatten()
    return _unit(row)


def _unit(row: Tensor) -> Tensor:
    """Of deviation 1."""
    deviation: Tensor = row.square().mean().sqrt()
    return row / deviation.clamp(min=torch.finfo(row.dtype).tiny)


def hartley(row: Tensor) -> Tensor:
    """Of (n,), orthonormal."""
    f = torch.fft.fft(row, norm="ortho")
    found: Tensor = f.real - f.imag
    return found


def bounded(tiles: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Tiles (M, D) whose ranks are within bounds (M, D): by r, then j, as ``ranks`` counts them."""
    inner = tiles.sort(dim=1, stable=True)
    outer = inner.values.sort(dim=0, stable=True)
    clipped = torch.minimum(torch.maximum(outer.values, low), high)
    # Back to the tile that each came from, then to its place there.
    return torch.empty_like(tiles).scatter(
        1, inner.indices, torch.empty_like(tiles).scatter(0, outer.indices, clipped)
    )


@lru_cache(maxsize=8)
def rank_bounds(tiles: int, size: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """(M, D) each: between which the r-th smallest of the M j-th smallest of D normal numbers is with probability ``level``."""
    from scipy.special import betaincinv, ndtri

    r, j = np.arange(1, tiles + 1)[:, None], np.arange(1, size + 1)[None]
    tails = ((1 - level) / 2, (1 + level) / 2)
    low, high = (ndtri(betaincinv(j, size - j + 1, betaincinv(r, tiles - r + 1, tail))) for tail in tails)
    return low, high
