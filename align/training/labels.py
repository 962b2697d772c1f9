"""Who says which of two pictures is better: the shapes world's own preferences, or a reward."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from align.config.errors import ConfigError
from align.rewards.base import Reward
from align.sampling.host import read
from align.shapes.grammar import parse
from align.shapes.utility import MARGIN, utility
from align.training.pairs import Label

WORLD_MARGIN = MARGIN
"""Differences below are no preference."""


def world(pictures: Tensor, prompts: Sequence[str]) -> Tensor:
    """Utilities (P,) of the shapes world, exact functions of the 8-bit pictures (``align.shapes.utility``); 20 ms each."""
    shown = read((pictures * 255).round().to(torch.uint8).permute(0, 2, 3, 1)).numpy()
    found = []
    for picture, prompt in zip(shown, prompts, strict=True):
        caption = parse(prompt)
        if caption is None:
            raise ConfigError(f"training.labels=world judges captions of the shapes world, not {prompt!r}")
        found.append(utility(picture, caption).total)
    return torch.tensor(found, dtype=torch.float64)


def by(reward: Reward, batch: int = 8) -> Label:
    """Labels that are a reward's values."""

    @torch.no_grad()
    def label(pictures: Tensor, prompts: Sequence[str]) -> Tensor:
        parts = []
        for first in range(0, len(prompts), batch):
            some = slice(first, first + batch)
            time = torch.zeros(len(pictures[some]), dtype=torch.int64, device=pictures.device)
            step = time if reward.takes_timestep else None
            parts.append(read(reward.score(pictures[some], prompts[some], step)).double())
        return torch.cat(parts)

    return label
