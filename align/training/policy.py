"""The backbone that is trained, as lessons sample from it and differentiate it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from align.backbones.base import Backbone, Conditioning
from align.backbones.guider import Guider
from align.processes.base import Process, Step, together
from align.rewards.base import Reward
from align.training.lora import Lora


@dataclass(frozen=True)
class Policy:
    """A backbone with its updates, and how it is sampled.

    Attributes:
        conditioning: of some prompts, a row each.
        most: rows of a call that no gradient passes.
    """

    backbone: Backbone
    lora: Lora
    process: Process
    guider: Guider
    conditioning: Callable[[Sequence[str]], Conditioning]
    device: torch.device
    most: int = 16

    def predict(self, z: Tensor, steps: Sequence[Step], prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Clean latents and noise, (P, ...) each, for latents that are each at a step of their own, under guidance.

        With a gradient in one call, without in calls of ``most`` rows.
        """
        size = len(z) if torch.is_grad_enabled() else self.most
        clean, noise = [], []
        for first in range(0, len(z), size):
            rows = slice(first, first + size)
            found = self.backbone.predict(
                z[rows],
                together(steps[rows], z),
                self.conditioning(prompts[rows]),
                self.guider,
                correction=False,
            )
            clean.append(found.x0)
            noise.append(found.eps)
        return torch.cat(clean), torch.cat(noise)

    @torch.no_grad()
    def score(self, reward: Reward, z0: Tensor, prompts: Sequence[str], timestep: int) -> Tensor:
        """Values (P,) of decoded predictions of clean latents (P, ...); timestep 0 is for finished ones."""
        found = []
        for first in range(0, len(z0), self.most):
            pictures = self.backbone.decode(z0[first : first + self.most])
            times = torch.full((len(pictures),), timestep) if reward.takes_timestep else None
            found.append(reward.score(pictures, prompts[first : first + self.most], times))
        return torch.cat(found).to(z0.device)
