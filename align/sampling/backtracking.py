"""Depth-first search with backtracking (arXiv 2505.23614): when a particle goes back to a noisier level, and how far.

At checked steps a particle is valued.  One that is not above the step's threshold is noised to a level some steps before and goes on from
there with fresh noise, until its budget does not allow it: then the best state that it has had at this step goes on.
``levels.py`` does it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from align.processes.base import Process, Step, renoise
from align.sampling.noise import Draws, drawn
from align.sampling.state import Kept, State


@dataclass(frozen=True)
class Backtracking:
    """How a budget is spent.

    Attributes:
        budget: evaluations of each particle, at least one for each step.
        thresholds: by index of the checked steps, which are not the first.
        depth: steps that a particle goes back at most.
    """

    budget: int
    thresholds: Mapping[int, float]
    depth: int

    def verdict(
        self, kept: Kept, best: Kept, level: int, levels: int, spent: Tensor
    ) -> tuple[Kept, Kept, Tensor]:
        """Of P states that are checked at a level, what goes on, the best that each particle has had here, and (P,) where they go.

        ``best`` is that of before, ``spent`` (P,) are each particle's evaluations so far; at the last of the ``levels`` latents are clean.
        """
        failed = kept.value <= self.thresholds[level]
        way = (self.budget - spent - (levels - level)).clamp(max=min(self.depth, level))
        back = failed & (way > 0)
        best = kept.replaced(best, best.value > kept.value)
        return kept.replaced(best, failed & ~back), best, torch.where(back, level - way, level + 1)


def moved(process: Process, kept: Kept, step: Step, there: int, draws: Draws) -> State:
    """States that were evaluated at a step, at the next level or at one ``there`` before it."""
    if there > step.index:
        kernel = process.kernel(kept.estimate.x0, kept.estimate.eps, step)
        z = drawn(kernel, draws)
    else:
        z = renoise(
            kept.state.z,
            replace(process.steps[there], a_next=step.a, s_next=step.s),
            draws.normal("renoise"),
        )
    return replace(kept.state, z=z, previous_x0=kept.estimate.x0)
