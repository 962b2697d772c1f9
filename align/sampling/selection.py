"""Which particles go on.

A selection is a function of a state and its estimate; all that belongs to a particle is re-indexed with it.  It never
mixes groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from align.processes.base import Step
from align.sampling.noise import Draws
from align.sampling.state import Estimate, State

Trace = Mapping[int, Mapping[str, float]]
"""Figures by name of each group that has any, by group number."""


@dataclass(frozen=True)
class Selected:
    """What goes on.

    Attributes:
        state, estimate: of the Q particles that go on, weights brought up to date.
        index: (Q,) int64 on the host, which of the particles before each of them was.
        trace: what is worth recording, by group number: ``ess``, ``resampled``, ``temperature``...
    """

    state: State
    estimate: Estimate
    index: Tensor
    trace: Trace = field(default_factory=dict)

    @staticmethod
    def by(state: State, estimate: Estimate, index: Tensor) -> Selected:
        """Particles by index, with nothing changed."""
        return Selected(state.take(index), estimate.take(index), index)


class Keep:
    """Every particle goes on; the base of all other rules."""

    def reads(self, step: Step) -> bool:
        """Whether it looks at values at this step."""
        return False

    def reads_end(self) -> bool:
        """Whether it looks at the finished pictures' rewards."""
        return False

    def tilts(self, step: Step) -> bool:
        """Whether proposals made at this step follow ``State.tilt``, 1 at the start; without, they are the model's own there."""
        return True

    def __call__(self, state: State, estimate: Estimate, step: Step, draws: Draws) -> Selected:
        """Choose among the particles of each group; groups must stay in order."""
        return Selected(state, estimate, torch.arange(len(state.z)))

    def finish(self, state: State, value: Tensor) -> State:
        """The state at the end, weights brought up to date with the (P,) rewards of the finished pictures."""
        return state


def by_value(value: Tensor) -> Tensor:
    """(P,) values by which to rank: one that is not finite is below all others, an infinite one too."""
    return torch.where(torch.isfinite(value), value, -torch.inf)
