"""What keeps optimised noise likely: minus log-densities of the noise's entries, as losses."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from align.config.strategy import ORDERS_TOGETHER
from align.sampling.host import send


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
    penalty is minus their sum, plus minus its mean over the orders: at least 4 log 2, or 2 log 2 without orders.  Some orders at a
    time are on the device, on the way back too.
    """
    bound = _log_bound(entries[None], width)[0]
    if len(orders):
        parts = [
            checkpoint(_bound_in_order, entries, some, width, use_reentrant=False, preserve_rng_state=False)
            for some in torch.split(orders, ORDERS_TOGETHER)
        ]
        bound = bound + torch.cat(parts).mean()
    return -bound


def _bound_in_order(entries: Tensor, orders: Tensor, width: int) -> Tensor:
    return _log_bound(entries[send(orders, entries.device)], width)


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
