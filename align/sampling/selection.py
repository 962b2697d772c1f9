"""Which particles go on.

A selection is a function of a state and its estimate that returns an index map over particles; the loop
re-indexes all that belongs to them.  It never mixes pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from align.processes.base import Step
from align.sampling.state import Estimate, State


@dataclass(frozen=True)
class Selected:
    """``index`` (Q,) of the particles that go on, and their log-weights (Q,) float32."""

    index: Tensor
    log_weights: Tensor


class Selection(Protocol):
    """A rule."""

    def __call__(self, state: State, estimate: Estimate, step: Step) -> Selected:
        """Choose; pictures must stay in order."""
        ...


def keep(state: State, estimate: Estimate, step: Step) -> Selected:
    """Every particle goes on."""
    return Selected(torch.arange(len(state.z), device=state.z.device), state.log_weights)


def best(state: State, estimate: Estimate, step: Step) -> Selected:
    """The particle of the highest value in each picture; one without a finite value is never chosen."""
    value = torch.where(torch.isfinite(estimate.value), estimate.value, -torch.inf)
    chosen = []
    for picture in state.picture.unique_consecutive():
        rows = torch.nonzero(state.picture == picture)[:, 0]
        chosen.append(rows[value[rows].argmax()])
    index = torch.stack(chosen)
    return Selected(index, state.log_weights[index])
