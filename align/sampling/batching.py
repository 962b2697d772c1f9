"""Calls of one fixed shape.

A kernel may sum in another order when the batch has another size, so rows are always computed in chunks of
exactly ``size``; the last is padded by repeating its last row.  Then a picture's bytes do not depend on how
many others are computed beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Chunk:
    """``rows`` (size,) indices to compute, of which the first ``real`` count."""

    rows: Tensor
    real: int


def chunks(number: int, size: int) -> Iterator[Chunk]:
    """Cut ``number`` rows into chunks of exactly ``size`` (at least 1)."""
    for start in range(0, number, size):
        rows = torch.arange(start, start + size).clamp(max=number - 1)
        yield Chunk(rows, min(size, number - start))
