"""Training on preferences: losses over groups, and the stage that all contrastive rewards and the BLIP share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from align.shapes.preferences import MARGIN
from scripts.shapes_training.groups import Batch, Pools, draw
from scripts.shapes_training.loop import Budget, Recipe, train
from scripts.shapes_training.spoil import gaussian_blur


def pair_loss(scores: Tensor, utilities: Tensor) -> tuple[Tensor, Tensor]:
    """Two-way cross entropy of all pairs along the last axis that differ by more than the margin.

    Returns:
        The loss and the share of pairs in the right order.
    """
    difference = utilities[..., :, None] - utilities[..., None, :]
    chosen = difference > MARGIN
    gap = (scores[..., :, None] - scores[..., None, :])[chosen]
    weight = difference[chosen].clamp(max=1.0)
    return (F.softplus(-gap) * weight).sum() / weight.sum().clamp_min(1e-6), (gap > 0).float().mean()


def ranking_loss(scores: Tensor, utilities: Tensor) -> Tensor:
    """Plackett-Luce negative log-likelihood of the order of the last axis, a place."""
    order = utilities.argsort(dim=-1, descending=True)
    ranked = scores.gather(-1, order)
    rest = ranked.flip(-1).logcumsumexp(-1).flip(-1)
    return (rest - ranked)[..., :-1].mean()


Scorer = Callable[[Batch], Tensor]
"""Scores (n, k, 4) of a batch, to be compared along k and along 4."""


def preference_stage(
    name: str,
    model: nn.Module,
    scorer: Scorer,
    pools: Pools,
    budget: Budget,
    folder: Path,
    seed: int,
    *,
    rankings: bool = False,
    early: bool = False,
    learning_rate: float = 1e-3,
    groups: int = 16,
    robust: float = 0.0,
) -> nn.Module:
    """Train a model on preferences between pictures for a caption, and between captions for a picture.

    With ``robust`` every picture is first moved by up to that distance (L2 over all channel values in
    0..1) the way that raises the loss most.  A model that guidance climbs needs this: otherwise its
    gradient points to invisible patterns that raise the score of wrong pictures.  (Recolouring an object
    moves a picture by about 10.)
    """

    def forward(batch: Batch) -> tuple[Tensor, dict[str, float]]:
        scores = scorer(batch).cpu()
        pictures, right = pair_loss(scores, batch.utilities)
        captions, captions_right = pair_loss(scores.transpose(1, 2), batch.utilities.transpose(1, 2))
        if rankings:
            pictures = ranking_loss(scores, batch.utilities)
        figures = {"right": float(right), "captions": float(captions_right)}
        return pictures + 0.5 * captions, figures

    def loss(rng: np.random.Generator, step: int) -> tuple[Tensor, dict[str, float]]:
        batch = draw(pools, rng, groups, early=early)
        if robust:
            batch.pictures.requires_grad_(True)
            (gradient,) = torch.autograd.grad(forward(batch)[0], batch.pictures)
            worst = against(batch.pictures.detach(), gradient, rng, robust)
            batch = dataclasses.replace(batch, pictures=worst)
        return forward(batch)

    recipe = Recipe(
        learning_rate=learning_rate, budget=budget, average=0.995, weight_decay=0.02, warmup_steps=100
    )
    return train(name, model, loss, recipe, folder, seed)


def against(pictures: Tensor, gradient: Tensor, rng: np.random.Generator, distance: float) -> Tensor:
    """Pictures (n, m, 3, H, W) moved along a gradient by random L2 distances up to ``distance``, clipped.

    For half of the groups the gradient is smoothed first: decoders make smooth changes.
    """
    n, m = pictures.shape[:2]
    flat = gradient.flatten(0, 1)
    smooth = torch.from_numpy(rng.random(n) < 0.5).repeat_interleave(m)
    if smooth.any():
        flat[smooth] = gaussian_blur(flat[smooth], torch.full((int(smooth.sum()),), 1.5))
    length = flat.flatten(1).norm(dim=1).clamp_min(1e-12).view(n, m, 1, 1, 1)
    reach = torch.from_numpy((distance * rng.random((n, 1, 1, 1, 1))).astype(np.float32))
    return (pictures + reach * flat.view_as(pictures) / length).clamp(0, 1)
