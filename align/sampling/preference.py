"""The preference loss of predicted clean latents: decoder, altered views, reward; and its gradient, staged."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from align.sampling.objective import Objective
from align.sampling.state import per_row
from align.sampling.views import ViewDraws, views
from align.startup import tolerant


def preference_loss(
    x0: Tensor,
    decode: Callable[[Tensor], Tensor],
    score: Callable[[Tensor], Tensor],
    objective: Objective,
    draws: ViewDraws | None = None,
    together: int | None = None,
    *,
    foreign: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """L_R and its gradient with respect to clean latents, reward first, then decoder.

    Each stage's graph is freed before the one below is walked back.  Copies are scored in parts whose gradients add up, so
    memory does not grow with their number.

    ``decode`` takes latents (P, ...) to pictures (P, 3, H, W); ``score`` v pictures of each row, (P v, 3, H, W) one row after the
    other, to their values (P v,).  Altered copies are drawn by ``draws``, and ``together`` of them are scored in one call; ``foreign`` if
    ``score`` is a user's code.

    Returns:
        (P,) losses, (P, ...) gradients and the (P,) scores of the unaltered pictures, all without a graph.
    """
    with torch.enable_grad():
        leaf = x0.detach().requires_grad_()
        decoded = decode(leaf)
        picture = decoded.detach().requires_grad_()
        scores = torch.empty(0)
        total = torch.zeros(len(x0), device=x0.device)
        by_picture = torch.zeros_like(picture)
        for shown in _shown(picture, objective, draws, together):
            seen = score(shown.flatten(0, 1)).view(shown.shape[:2])
            if not len(scores):
                scores = seen[:, 0].detach()
            losses = objective.view_losses(seen).sum(dim=1)
            with tolerant(foreign):
                by_picture = by_picture + torch.autograd.grad(losses.sum(), picture)[0]
            total = total + losses.detach()
        loss, slope = objective.over_views(total, 1 + objective.copies)
        (by_latents,) = torch.autograd.grad(decoded, leaf, per_row(slope, by_picture) * by_picture)
    return loss, by_latents, scores


def picture_gradient(
    latents: Tensor, decode: Callable[[Tensor], Tensor], judge: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor, Tensor]:
    """Of a judgement of decoded pictures: reward first, whose graph is freed, then decoder.

    ``judge`` takes what is decoded, (P, 3, H, W) float32, not clamped and without a graph, to (P,) values and the loss's gradient
    with respect to it.

    Returns:
        (P, 3, H, W) pictures in [0, 1], (P,) values, and the gradient with respect to clean latents (P, ...), all without a graph.
    """
    with torch.enable_grad():
        leaf = latents.detach().requires_grad_()
        decoded = decode(leaf).float()
    values, by_picture = judge(decoded.detach())
    (by_latents,) = torch.autograd.grad(decoded, leaf, by_picture)
    return decoded.detach().clamp(0, 1), values, by_latents


def reward_gradient(
    decoded: Tensor, score: Callable[[Tensor], Tensor], *, foreign: bool = False
) -> tuple[Tensor, Tensor]:
    """Rewards (P,) of pictures (P, 3, H, W) as they are kept, clamped to [0, 1], and the gradient of minus the reward.

    A saturated pixel has none.  ``score`` and ``foreign`` as in ``preference_loss``.
    """
    with torch.enable_grad():
        leaf = decoded.detach().requires_grad_()
        values = score(leaf.clamp(0, 1))
        with tolerant(foreign):
            (by_picture,) = torch.autograd.grad(-values.sum(), leaf)
    return values.detach(), by_picture


def _shown(
    picture: Tensor, objective: Objective, draws: ViewDraws | None, together: int | None
) -> Iterator[Tensor]:
    """The picture (P, 3, H, W) and its altered copies, some at a time: (P, v, 3, H, W)."""

    def seen() -> Tensor:  # anew for each part, as the way back through one frees its graph
        return picture.clamp(0, 1) if objective.clamp else picture

    if draws is None:
        yield seen()[:, None]
        return
    number = draws.row.shape[1]
    together = together or 1 + number
    for first in range(0, 1 + number, together):
        copies = slice(max(first - 1, 0), first + together - 1)
        whole = seen()
        parts = [whole[:, None]] if first == 0 else []
        if copies.start < copies.stop:
            parts.append(views(whole, draws.copies(copies)))
        yield torch.cat(parts, dim=1)
