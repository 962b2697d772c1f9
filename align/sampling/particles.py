"""Particle filters: weigh the particles of a group, resample them where their weights are too unequal.

A filter targets p(x) exp(f(x)) with f the reward times lambda, or over alpha.  On the way a particle's weight holds a
potential of its expected reward instead, the twist; each step's weight brings in the new twist and takes out the old one, and
the end's takes out the last and brings in the finished picture's reward.  Weights are never normalised, only set to their mean
when a group is resampled, so that the log-sum-exp over a group estimates the log evidence log E[exp(f)] without bias (of
the evidence itself) at every step.

Rules are functions of one group's numbers, float64 on the CPU, where they are the same on every machine; a step's numbers of
all groups are read at once.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from torch import Tensor

from align.processes.base import Step
from align.sampling.host import read_together, send
from align.sampling.noise import Draws
from align.sampling.resampling import Resampling
from align.sampling.selection import Keep, Selected
from align.sampling.state import Estimate, State
from align.sampling.tempering import Tempering


@dataclass(frozen=True)
class Group:
    """What a filter reads of the N particles of a group, and what it makes of it; (N,) of each, on the CPU.

    Attributes:
        rows: which of the state's particles they are.
        value: expected rewards.
        correction, gradient: norms of the classifier-free correction (0 where nothing reads it) and of the loss's gradient.
        log_weights, twist, statistic, tilt: see ``State``.
    """

    rows: Tensor
    value: Tensor
    correction: Tensor
    gradient: Tensor
    log_weights: Tensor
    twist: Tensor
    statistic: Tensor
    tilt: Tensor


class Filter(Keep, ABC):
    """A selection by weights; a particle whose value is not finite has none."""

    resampling: Resampling

    @property
    def reads_correction(self) -> bool:
        return False

    @abstractmethod
    def weigh(self, group: Group, step: Step) -> Group:
        """The group with the step's potential in its log-weights, and what is to be remembered of it."""

    def follow(self, group: Group, index: Tensor) -> Group:
        """The particles that go on, with what belongs to them."""
        return Group(*(getattr(group, field.name)[index] for field in fields(group)))

    def move(self, group: Group, step: Step, draws: Draws) -> tuple[Group, Mapping[str, float]]:
        """The group after a step, and its figures for the trace."""
        weighed = self.weigh(group, step)
        drawn = self.resampling(weighed.log_weights, draws, int(group.rows[0]))
        moved = replace(self.follow(weighed, drawn.index), log_weights=drawn.log_weights)
        return moved, {"ess": drawn.ess, "resampled": drawn.happened}

    def __call__(self, state: State, estimate: Estimate, step: Step, draws: Draws) -> Selected:
        if not self.reads(step):
            return super().__call__(state, estimate, step, draws)
        moved, figures = zip(
            *(self.move(group, step, draws) for group in self._groups(state, estimate)), strict=True
        )
        index = torch.cat([group.rows for group in moved])
        names = ("log_weights", "twist", "statistic", "tilt")
        columns = torch.stack([torch.cat([getattr(group, name) for group in moved]) for name in names])
        columns = send(columns.to(state.log_weights.dtype), state.log_weights.device)
        changed = dict(zip(names, columns, strict=True))
        trace = {int(state.group[group.rows[0]]): one for group, one in zip(moved, figures, strict=True)}
        return Selected(replace(state.take(index), **changed), estimate.take(index), index, trace)

    def _groups(self, state: State, estimate: Estimate) -> list[Group]:
        """The numbers of all groups, read from the device at once."""
        correction = torch.zeros_like(estimate.value)
        if self.reads_correction:
            correction = estimate.correction.flatten(1).norm(dim=1)
        numbers = (estimate.value, correction, estimate.gradient_norm)
        columns = read_together(*numbers, state.log_weights, state.twist, state.statistic, state.tilt)
        return [Group(rows, *(column[rows] for column in columns)) for rows in state.groups()]


def weighed(carried: Tensor, potential: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) log-weights of a group after a step, and the (N,) log-potentials that went into them.

    A particle whose weight or potential is not finite has no weight any more.  Where that would be all of a group, the step
    does not weigh: the potential of a step on the way is free, and what is left of the weights still says what they did.
    """
    alive = torch.isfinite(carried)
    sound = alive & torch.isfinite(potential)
    if not bool(sound.any()):
        return torch.where(alive, carried, -torch.inf), torch.zeros_like(carried)
    potential = torch.where(sound, potential, 0)
    return torch.where(sound, carried + potential, -torch.inf), potential


def finished(state: State, log_target: Tensor) -> State:
    """Weights at the end, for (P,) log-potentials of the finished pictures; what is not finite has none."""
    weights = state.log_weights + log_target - state.twist
    weights = torch.where(torch.isfinite(weights), weights, -torch.inf)
    twist = torch.where(torch.isfinite(weights), log_target, -torch.inf)
    return replace(state, log_weights=weights, twist=twist)


@dataclass(frozen=True)
class Tempered(Filter):
    """DAS (Kim et al. 2025, arXiv 2501.05803, algorithm 1), and with it TDS and SMC.

    The intermediate target of step t is p(z_t) exp(lambda_t r(x0(z_t)) / alpha), so a particle's weight grows by

        w_t = p(z_t | z_{t+1}) / q(z_t | z_{t+1})  exp(lambda_t r(x0(z_t)) / alpha - lambda_{t+1} r(x0(z_{t+1})) / alpha),

    q the proposal that follows the tilt lambda_t / alpha of the step before (p / q is in ``State.log_weights`` already).
    ``State.statistic`` holds the temperature of the step before.

    Attributes:
        alpha: scale of the reward.
        steps: number of sampling steps.
        guidance_scale: of classifier-free guidance, for the temperature of rule "freedom".
    """

    tempering: Tempering
    alpha: float
    resampling: Resampling
    steps: int
    guidance_scale: float = 1.0

    def reads(self, step: Step) -> bool:
        return self.tempering.tempers(step.index, self.steps)

    def tilts(self, step: Step) -> bool:
        return self.reads(step)

    def reads_end(self) -> bool:
        return True

    @property
    def reads_correction(self) -> bool:
        return self.tempering.rule == "freedom"

    def weigh(self, group: Group, step: Step) -> Group:
        reward, base = group.value / self.alpha, group.log_weights - group.twist
        previous = float(group.statistic[0])
        scale = self.tempering.bounds(step.index, self.steps, previous)
        # By the particles that have a weight and a reward; the bounds where there is none.
        sound = torch.isfinite(base) & torch.isfinite(reward)
        if bool(sound.any()):
            scale = self.tempering.temperatures(
                step.index,
                self.steps,
                previous,
                base=base[sound],
                reward=reward[sound],
                correction=self.guidance_scale * group.correction,
                gradient=group.gradient / self.alpha,
            )
        weights, twist = weighed(base, scale.now * reward)
        return replace(
            group,
            log_weights=weights,
            twist=twist,
            statistic=torch.full_like(twist, scale.now),
            tilt=torch.full_like(twist, scale.next / self.alpha),
        )

    def move(self, group: Group, step: Step, draws: Draws) -> tuple[Group, Mapping[str, float]]:
        moved, figures = super().move(group, step, draws)
        return moved, {**figures, "temperature": float(moved.statistic[0])}

    def finish(self, state: State, value: Tensor) -> State:
        return finished(state, value.to(state.log_weights) / self.alpha)


@dataclass(frozen=True)
class Steering(Filter):
    """Feynman-Kac steering (Singhal et al. 2025, arXiv 2501.06848, algorithm 1).

    At some steps particles are resampled by a potential G of their values r_t: with lambda the rate and s the statistic,

        max:   G = exp(lambda s),  s = max(s, r_t)          add:  G = exp(lambda s),  s = s + r_t
        diff:  G = exp(lambda (r_t - r_{t+1}))              rt:   G = exp(lambda r_t)

    The last is G_0 = exp(lambda r(x_0)) over the product of all before, so that the target is p(x) exp(lambda r(x)) whichever
    potential led there; the logarithm of this product is ``State.twist``.

    A rate that rises is a potential of its own: the target is that of the last one.

    Attributes:
        at: indices of these steps.
        growth: gamma, by which the k-th of them has min((1 + gamma)^k - 1, 1) of the rate; 0 for all of it at each.
    """

    potential: Literal["max", "diff", "add", "rt"]
    rate: float
    at: tuple[int, ...]
    resampling: Resampling
    growth: float = 0.0

    def reads(self, step: Step) -> bool:
        return step.index in self.at

    def reads_end(self) -> bool:
        return True

    @property
    def start(self) -> float:
        """The statistic before the first value."""
        return -math.inf if self.potential == "max" else 0.0

    def weigh(self, group: Group, step: Step) -> Group:
        before = group.statistic
        if step.index == self.at[0]:
            before = torch.full_like(before, self.start)
        # A value that is not finite says nothing: what is remembered of the particle stays finite.
        known = torch.isfinite(group.value)
        statistic = torch.where(known, self._statistic(group.value, before), before)
        potential = torch.where(known, self.log_potential(statistic, before, group.twist, step), torch.nan)
        weights, gained = weighed(group.log_weights, potential)
        return replace(group, log_weights=weights, twist=group.twist + gained, statistic=statistic)

    def log_potential(self, statistic: Tensor, before: Tensor, product: Tensor, step: Step) -> Tensor:
        """(N,) log G of the statistics up to this step's values and ``before``, with ``product`` the log of those so far."""
        return self.rate_at(step) * (statistic - before if self.potential == "diff" else statistic)

    def rate_at(self, step: Step) -> float:
        """The rate of a step at which particles are resampled."""
        if self.growth == 0:
            return self.rate
        return self.rate * min((1 + self.growth) ** (self.at.index(step.index) + 1) - 1, 1.0)

    def _statistic(self, value: Tensor, before: Tensor) -> Tensor:
        if self.potential == "max":
            return torch.maximum(value, before)
        return value + before if self.potential == "add" else value

    def finish(self, state: State, value: Tensor) -> State:
        return finished(state, self.rate * value.to(state.log_weights))
