"""Training on preferences: losses over groups, and the stage that all contrastive rewards and the BLIP share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from align.shapes.utility import MARGIN
from scripts.shapes_training.groups import Batch, Pools, draw
from scripts.shapes_training.loop import Budget, Recipe, train


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
) -> nn.Module:
    """Train a model on preferences between pictures for a caption, and between captions for a picture."""

    def loss(rng: np.random.Generator, spent: float) -> tuple[Tensor, dict[str, float]]:
        batch = draw(pools, rng, groups, early=early)
        scores = scorer(batch).cpu()
        pictures, right = pair_loss(scores, batch.utilities)
        captions, captions_right = pair_loss(scores.transpose(1, 2), batch.utilities.transpose(1, 2))
        if rankings:
            pictures = ranking_loss(scores, batch.utilities)
        figures = {"right": float(right), "captions": float(captions_right)}
        return pictures + 0.5 * captions, figures

    recipe = Recipe(
        learning_rate=learning_rate, budget=budget, average=0.995, weight_decay=0.02, warmup_steps=100
    )
    return train(name, model, loss, recipe, folder, seed)
