"""Rollover budget forcing (RBF, arXiv 2503.19385): how a particle's budget is spent on candidates, one at a time.

A particle stays at its noise level and draws next states, one evaluation each, until one is better than the state that it came
from, or the level's quota is used up and the best of the candidates goes on; what is left of a quota is added to the next level's.
``levels.py`` does it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from align.processes.base import Process
from align.sampling.host import send
from align.sampling.noise import Draws, drawn
from align.sampling.state import Kept, State


@dataclass(frozen=True)
class Rollover:
    """How a budget is spent.

    Attributes:
        budget: evaluations of each particle, at least ``first`` and one for each level: then all come to the last level.
        first: initial states of which the best begins.
    """

    budget: int
    first: int

    def tries(self) -> int:
        """Candidates of each particle after the first states."""
        return self.budget - self.first

    def share(self, levels: int) -> int:
        """What each level has of the budget; the last that proposes has what is left."""
        return self.tries() // (levels - 1)

    def bar(self, bar: Tensor, value: Tensor, gone: Tensor, top: Tensor) -> Tensor:
        """(P,) what the next candidates have to beat: the state that they come from.

        Args:
            bar: what this ``value`` of a candidate had to beat.
            value: (P,) of the candidates.
            gone: (P,) whether the particle left its level, by its best candidate there.
            top: (P,) that one's value.
        """
        return torch.where(gone, top, bar)

    def result(self, process: Process, top: Kept, draws: Draws) -> State:
        """Clean latents of the best candidates at the last level; ``choose=weight`` goes by their values.

        ``draws`` are those of the last step.
        """
        last = process.steps[-1]
        kernel = process.kernel(top.estimate.x0, top.estimate.eps, last)
        z = drawn(kernel, draws)
        return replace(top.state, z=z, log_weights=send(top.value, z.device).to(top.state.log_weights))
