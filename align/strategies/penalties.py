"""What keeps optimised noise likely: minus log-densities of the noise's entries, as losses."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def norm_penalty(entries: Tensor) -> Tensor:
    """Minus the log-density of the norm of d Gaussian entries (d,), up to a constant: |z|^2 / 2 - (d - 1) log |z|.

    ReNO (arXiv 2406.04312).  Least at |z| = sqrt(d - 1).
    """
    square = entries.square().sum()
    return square / 2 - (len(entries) - 1) / 2 * square.log()


def gaussian_penalty(entries: Tensor, orders: Tensor, width: int) -> Tensor:
    """DNO's bounds (arXiv 2405.18881) on how likely the mean and the covariance of entries (d,) are.

    Entries are read as n rows of ``width`` m, in their own order and in each of ``orders`` (k, d), as given by indices; what fills
    no row is left out.  With M1 the norm of the column means and M2 the spectral norm of the covariance less one, concentration
    bounds are log p1 = min(-n M1^2 / 2m, -log 2) and log p2 = min(-n max(sqrt(1 + M2) - 1 - sqrt(m / n), 0)^2 / 2, -log 2).  The
    penalty is minus their sum, plus minus its mean over the orders: at least 4 log 2, or 2 log 2 without orders.
    """
    bound = _log_bound(entries[None], width)[0]
    if len(orders):
        bound = bound + _log_bound(entries[orders], width).mean()
    return -bound


def _log_bound(vectors: Tensor, width: int) -> Tensor:
    """Log p1 + log p2 of each of (k, d) vectors."""
    number = vectors.shape[1] // width
    rows = vectors[:, : number * width].view(len(vectors), number, width)
    mean = rows.mean(dim=1).square().sum(dim=1)  # M1^2, whose root has no slope at 0
    covariance = rows.transpose(1, 2) @ rows / number
    spread: Tensor = torch.linalg.matrix_norm(covariance - torch.eye(width, device=rows.device), ord=2)
    excess = ((1 + spread).sqrt() - 1 - math.sqrt(width / number)).clamp(min=0)
    likely = -math.log(2)
    bound: Tensor = (-number / (2 * width) * mean).clamp(max=likely)
    return bound + (-number / 2 * excess.square()).clamp(max=likely)
