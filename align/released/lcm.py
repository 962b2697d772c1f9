"""Few-step consistency sampling as DAS's code (arXiv 2501.05803) guides and weighs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from align.processes.base import Gaussian, Process, Step
from align.processes.lcm import lcm


def released_lcm(schedule: Mapping[str, Any], steps: int, eta: float) -> Process:
    """``lcm`` whose guidance and densities take ``eta`` times the kernel's deviation, and whose noise keeps its own.

    The last step but one goes unguided, and is weighed by the ratio of the one before it, once more.  The last, whose clean
    latents have no density, takes eta sqrt(1 - abar) for its deviation, and sqrt(abar) f for the mean of its densities.
    """
    *others, last = lcm(schedule, steps).steps
    moved = [replace(step, std=eta * step.std) for step in others]
    if moved:
        moved[-1] = replace(moved[-1], std=0.0)
    return _ReleasedLCM((*moved, replace(last, std=eta * last.s)), eta)


@dataclass(frozen=True)
class _ReleasedLCM(Process):
    """It remembers a step's ratios until the next, by place: particles resampled in between get one another's."""

    eta: float
    memory: list[Tensor] = field(default_factory=list)

    def kernel(self, x0: Tensor, eps: Tensor, step: Step) -> Gaussian:
        mean, left = step.a_next * x0, len(self.steps) - 1 - step.index
        if left == 0:
            return _Mismatched(mean, step.std, step.s_next, (1 - step.a) * x0, [])
        std, offset = self.eta * step.s_next, torch.zeros_like(x0)
        return _Mismatched(mean, std, step.s_next, offset, self.memory, repeated=left == 1)


@dataclass(frozen=True)
class _Mismatched(Gaussian):
    """A kernel whose density, of deviation ``std``, is not that of what it draws.

    Attributes:
        noise: deviation of what is drawn.
        offset: (P, ...), by how much ``mean`` lies beyond the density's.
        memory: of the log-ratios of the last step that had its own.
        repeated: give those that were kept instead of its own.
    """

    noise: float
    offset: Tensor
    memory: list[Tensor]
    repeated: bool = False

    def sample(self, noise: Tensor) -> Tensor:
        return self.mean + self.noise * noise

    def shifted(self, shift: Tensor) -> Gaussian:
        return replace(self, mean=self.mean + shift)

    def log_ratio(self, proposal: Gaussian, noise: Tensor) -> Tensor:
        """-<d, e> / std^2 - |d|^2 / (2 std^2), e = z less the mean of the proposal's density."""
        if self.repeated:
            return self.memory[0] if self.memory else torch.zeros(len(noise), device=noise.device)
        moved, drawn = (proposal.mean - self.mean) / self.std, (self.noise * noise + self.offset) / self.std
        kind = torch.float32 if moved.device.type == "mps" else torch.float64
        moved, drawn = moved.flatten(1).to(kind), drawn.flatten(1).to(kind)
        self.memory[:] = [-(moved * drawn).sum(dim=1) - moved.square().sum(dim=1) / 2]
        return self.memory[0]
