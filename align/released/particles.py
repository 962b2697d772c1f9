"""Particle filters as they were released: DAS's and Feynman-Kac steering's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from align.processes.base import Step
from align.sampling.noise import Draws
from align.sampling.particles import Group, Steering, Tempered
from align.sampling.selection import Selected
from align.sampling.state import Estimate, State


class StaleTempered(Tempered):
    """DAS whose gradients and twists stay where they are when particles are resampled (quirk ``stale_gradients``).

    A particle is pushed by, and weighed against, another one's.
    """

    def follow(self, group: Group, index: Tensor) -> Group:
        return replace(super().follow(group, index), twist=group.twist)

    def __call__(self, state: State, estimate: Estimate, step: Step, draws: Draws) -> Selected:
        selected = super().__call__(state, estimate, step, draws)
        stayed = replace(selected.estimate, gradient=estimate.gradient, gradient_norm=estimate.gradient_norm)
        return replace(selected, estimate=stayed)


@dataclass(frozen=True)
class ForgetfulSteering(Steering):
    """Feynman-Kac steering whose weights are forgotten where nothing is resampled (quirk ``forgetful_weights``).

    Potentials are at most 1e10.  The last of ``at`` takes the product of the others out of the prediction's statistic, and
    resamples at an effective size below half whatever the threshold; the finished picture is not weighed.

    Attributes:
        floor: the statistic before the first value, so that with "max" all particles below it are alike.
    """

    floor: float = 0.0

    def reads_end(self) -> bool:
        return False

    @property
    def start(self) -> float:
        return self.floor

    def log_potential(self, statistic: Tensor, before: Tensor, product: Tensor, step: Step) -> Tensor:
        potential = super().log_potential(statistic, before, product, step)
        if step.index == self.at[-1] and self.potential != "diff":
            potential = potential - product
        return potential.clamp(max=math.log(1e10))

    def move(self, group: Group, step: Step, draws: Draws) -> tuple[Group, Mapping[str, float]]:
        resampling, weighed = self.resampling, self.weigh(group, step)
        if step.index == self.at[-1]:
            resampling = replace(resampling, threshold=0.5)
        drawn = resampling(weighed.log_weights, draws, int(group.rows[0]))
        if not drawn.happened:
            weighed = replace(weighed, twist=group.twist)
        forgotten = torch.full_like(weighed.log_weights, -math.log(len(group.rows)))
        moved = replace(self.follow(weighed, drawn.index), log_weights=forgotten)
        return moved, {"ess": drawn.ess, "resampled": drawn.happened}

    def finish(self, state: State, value: Tensor) -> State:
        return state
