"""Particle filters: what particles weigh, and when they are resampled by it.

A filter targets p(x) exp(f(x)) with f the reward times lambda, or over alpha.  On the way a particle's weight holds a
potential of its expected reward instead, the twist; each step's weight brings in the new twist and takes out the old one, and
the end's takes out the last and brings in the finished picture's reward.  Weights are never normalised, only set to their mean
when a group is resampled, so that the log-sum-exp over a group estimates the log evidence log E[exp(f)] without bias (of
the evidence itself) at every step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from align.processes.base import Step
from align.sampling.host import read_together, send
from align.sampling.noise import Draws
from align.sampling.resampling import Resampled, Scheme, resample_when_low
from align.sampling.selection import Keep, Selected
from align.sampling.state import Estimate, State
from align.sampling.tempering import Temperatures, Tempering

Potential = Literal["max", "diff", "add", "rt"]


@dataclass(frozen=True)
class Resampling:
    """How a group is resampled.

    Attributes:
        scheme: how ancestors are drawn.
        threshold: where the effective sample size is below this share of the particles; ``None`` for always.
    """

    scheme: Scheme = "systematic"
    threshold: float | None = 0.5

    def __call__(self, log_weights: Tensor, draws: Draws, row: int) -> tuple[Resampled, Tensor]:
        """Ancestors of a group by (N,) log-weights, and the (N,) log-weights that keep its evidence.

        A group in which no particle has any weight is left as it is, with an effective size of 0.

        Args:
            log_weights: of the group, float64.
            draws: of the whole state.
            row: the group's first.
        """
        log_weights = log_weights.double().cpu()
        total = torch.logsumexp(log_weights, 0)
        if not bool(torch.isfinite(total)):
            number = len(log_weights)
            return Resampled(torch.arange(number), log_weights, 0.0, happened=False), log_weights
        found = resample_when_low(self.scheme, log_weights, self.threshold, draws.of_group(row, "resample"))
        return found, found.log_weights + total


@dataclass(frozen=True)
class _Moved:
    """What became of a group of N particles: (N,) of each, in their new order.

    Attributes:
        rows: which of the state's particles each was.
        log_weights, twist, statistic, tilt: see :class:`State`.
        figures: for the trace.
    """

    rows: Tensor
    log_weights: Tensor
    twist: Tensor
    statistic: Tensor
    tilt: Tensor
    figures: Mapping[str, float]


def _together(state: State, estimate: Estimate, groups: list[_Moved]) -> Selected:
    """All groups of a state again."""
    index = torch.cat([group.rows for group in groups])
    numbers = [int(state.group[group.rows[0]]) for group in groups]
    weights, twist, statistic, tilt = (
        send(
            torch.cat([getattr(group, name) for group in groups]).to(state.log_weights.dtype), state.z.device
        )
        for name in ("log_weights", "twist", "statistic", "tilt")
    )
    moved = replace(state.take(index), log_weights=weights, twist=twist, statistic=statistic, tilt=tilt)
    trace = {number: group.figures for number, group in zip(numbers, groups, strict=True)}
    return Selected(moved, estimate.take(index), index, trace)


def _at_once(state: State, estimate: Estimate) -> tuple[State, Estimate]:
    """With all groups' numbers on the host, by one read."""
    names = ("log_weights", "twist", "statistic", "tilt")
    value, *own = read_together(estimate.value, *(getattr(state, name) for name in names))
    return replace(state, **dict(zip(names, own, strict=True))), replace(estimate, value=value)


def _weighed(carried: Tensor, potential: Tensor) -> tuple[Tensor, Tensor]:
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


@dataclass(frozen=True)
class Tempered(Keep):
    """DAS (arXiv 2501.05803): at each step a particle's twist is lambda_t r(x0(z_t)) / alpha, lambda rising to 1.

    ``State.statistic`` holds the temperature of the step before, ``State.tilt`` what the next proposal follows.

    Attributes:
        tempering: the temperatures.
        alpha: scale of the reward.
        resampling: how.
        steps: number of sampling steps.
        guidance_scale: of classifier-free guidance, for the temperature of rule "freedom".
        released: the gradient and the twist stay where they are when particles are resampled, so a particle is pushed by, and
            weighed against, another one's.
    """

    tempering: Tempering
    alpha: float
    resampling: Resampling
    steps: int
    guidance_scale: float = 1.0
    released: bool = False

    def reads(self, step: Step) -> bool:
        """See :class:`Selection`: from the first tempered step on."""
        return self.tempering.tempers(step.index, self.steps)

    def tilts(self, step: Step) -> bool:
        """See :class:`Selection`: likewise."""
        return self.reads(step)

    def reads_end(self) -> bool:
        """See :class:`Selection`."""
        return True

    def __call__(self, state: State, estimate: Estimate, step: Step, draws: Draws) -> Selected:
        """See :class:`Selection`. A particle whose value is not finite has no weight."""
        if not self.reads(step):
            return super().__call__(state, estimate, step, draws)
        there = _at_once(state, estimate)
        groups = [self._group(*there, step, draws, rows) for rows in state.groups()]
        selected = _together(state, estimate, groups)
        if not self.released:
            return selected
        stayed = replace(selected.estimate, gradient=estimate.gradient, gradient_norm=estimate.gradient_norm)
        return replace(selected, estimate=stayed)

    def _group(self, state: State, estimate: Estimate, step: Step, draws: Draws, rows: Tensor) -> _Moved:
        reward = estimate.value[rows].cpu().double() / self.alpha
        base = (state.log_weights[rows] - state.twist[rows]).cpu().double()
        scale = self._temperatures(state, estimate, step, rows, base, reward)
        weights, twist = _weighed(base, scale.now * reward)
        drawn, carried = self.resampling(weights, draws, int(rows[0]))
        return _Moved(
            rows[drawn.index],
            carried,
            twist if self.released else twist[drawn.index],
            torch.full_like(twist, scale.now),
            torch.full_like(twist, scale.next / self.alpha),
            {"ess": drawn.ess, "resampled": drawn.happened, "temperature": scale.now},
        )

    def _temperatures(
        self, state: State, estimate: Estimate, step: Step, rows: Tensor, base: Tensor, reward: Tensor
    ) -> Temperatures:
        """Those of a group, by the particles that have a weight and a reward; the bounds where there is none."""
        previous = float(state.statistic[rows[0]])
        sound = torch.isfinite(base) & torch.isfinite(reward)
        if not bool(sound.any()):
            return self.tempering.bounds(step.index, self.steps, previous)
        return self.tempering.temperatures(
            step.index,
            self.steps,
            previous,
            base=base[sound],
            reward=reward[sound],
            correction=self.guidance_scale * estimate.correction[rows],
            gradient=estimate.gradient[rows] / self.alpha,
        )

    def finish(self, state: State, value: Tensor) -> State:
        """See :class:`Selection`: the last twist gives way to the finished picture's reward, at temperature 1."""
        return _finished(state, value.to(state.log_weights) / self.alpha)


def _finished(state: State, log_target: Tensor) -> State:
    """Weights at the end, for (P,) log-potentials of the finished pictures; what is not finite has none."""
    weights = state.log_weights + log_target - state.twist
    weights = torch.where(torch.isfinite(weights), weights, -torch.inf)
    return replace(
        state, log_weights=weights, twist=torch.where(torch.isfinite(weights), log_target, -torch.inf)
    )


@dataclass(frozen=True)
class Steering(Keep):
    """Feynman-Kac steering (arXiv 2501.06848): at some steps particles are resampled by a potential of their values.

    With s the statistic of a particle's values so far, R the last one's, the weight is exp(rate s) for "max" (s the largest
    value so far), "add" (s their sum) and "rt" (s the value), and exp(rate (s - R)) for "diff" (s the value).  At the end
    it is exp(rate r) of the finished picture over the product of all weights before, so that the target is
    p(x) exp(rate r(x)) whichever potential led there.

    Attributes:
        potential: which.
        rate: lambda.
        at: indices of the steps.
        resampling: how.
        floor: the statistic before the first value; ``None`` for minus infinity with "max" and 0 with the others.
        released: weights are clamped to 1e10 and forgotten where nothing is resampled, also in the product; the last of
            ``at`` takes the product out of the prediction's statistic, and resamples at an effective size below half whatever
            the threshold; nothing is weighed at the end.
    """

    potential: Potential
    rate: float
    at: tuple[int, ...]
    resampling: Resampling
    floor: float | None = None
    released: bool = False

    def reads(self, step: Step) -> bool:
        """See :class:`Selection`."""
        return step.index in self.at

    def reads_end(self) -> bool:
        """See :class:`Selection`."""
        return not self.released

    def __call__(self, state: State, estimate: Estimate, step: Step, draws: Draws) -> Selected:
        """See :class:`Selection`. A particle whose value is not finite has no weight."""
        if not self.reads(step):
            return super().__call__(state, estimate, step, draws)
        there = _at_once(state, estimate)
        groups = [self._group(*there, step, draws, rows) for rows in state.groups()]
        return _together(state, estimate, groups)

    def _group(self, state: State, estimate: Estimate, step: Step, draws: Draws, rows: Tensor) -> _Moved:
        value = estimate.value[rows].cpu().double()
        carried, product, before = (
            part[rows].cpu().double() for part in (state.log_weights, state.twist, state.statistic)
        )
        if step.index == self.at[0]:
            before = torch.full_like(before, self._start)
        # A value that is not finite says nothing: what is remembered of the particle stays finite.
        known = torch.isfinite(value)
        statistic = torch.where(known, self._statistic(value, before), before)
        potential = self.rate * (statistic - before if self.potential == "diff" else statistic)
        potential = torch.where(known, potential, torch.nan)
        resampling = self.resampling
        if self.released:
            if step.index == self.at[-1]:
                resampling = replace(resampling, threshold=0.5)
                if self.potential != "diff":
                    potential = potential - product
            potential = potential.clamp(max=math.log(1e10))
        weights, gained = _weighed(carried, potential)
        drawn, after = resampling(weights, draws, int(rows[0]))
        if self.released:
            after = torch.full_like(after, -math.log(len(rows)))
            gained = gained if drawn.happened else torch.zeros_like(gained)
        return _Moved(
            rows[drawn.index],
            after,
            (product + gained)[drawn.index],
            statistic[drawn.index],
            state.tilt[rows].cpu(),
            {"ess": drawn.ess, "resampled": drawn.happened},
        )

    @property
    def _start(self) -> float:
        """The statistic before the first value."""
        if self.floor is not None:
            return self.floor
        return -math.inf if self.potential == "max" else 0.0

    def _statistic(self, value: Tensor, before: Tensor) -> Tensor:
        """(N,) statistics from values and the statistics so far."""
        if self.potential == "max":
            return torch.maximum(value, before)
        return value + before if self.potential == "add" else value

    def finish(self, state: State, value: Tensor) -> State:
        """See :class:`Selection`."""
        return state if self.released else _finished(state, self.rate * value.to(state.log_weights))
