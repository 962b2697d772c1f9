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
from align.sampling.noise import Draws
from align.sampling.resampling import Resampled, Scheme, resample_when_low
from align.sampling.selection import Keep, Selected
from align.sampling.state import Estimate, State
from align.sampling.tempering import Tempering

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

        A group in which no particle has any weight is left as it is.

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


def _whole(parts: list[Tensor], like: Tensor) -> Tensor:
    return torch.cat(parts).to(like)


def _trace(figures: list[dict[str, float]]) -> Mapping[str, Tensor]:
    """Figures of each group, by name."""
    return {name: torch.tensor([one[name] for one in figures]) for name in figures[0]}


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

    def reads_end(self) -> bool:
        """See :class:`Selection`."""
        return True

    def __call__(self, state: State, estimate: Estimate, step: Step, draws: Draws) -> Selected:
        """See :class:`Selection`. A particle whose value is not finite has no weight."""
        if not self.reads(step):
            return super().__call__(state, estimate, step, draws)
        index, weights, twists, tilts, temperatures, figures = [], [], [], [], [], []
        for rows in state.groups():
            reward = estimate.value[rows].double().cpu() / self.alpha
            sound = torch.isfinite(reward)
            base = (state.log_weights[rows] - state.twist[rows]).double().cpu()
            scale = self.tempering.temperatures(
                step.index,
                self.steps,
                float(state.statistic[rows[0]]),
                base=base[sound],
                reward=reward[sound],
                correction=self.guidance_scale * estimate.correction[rows],
                gradient=estimate.gradient[rows] / self.alpha,
            )
            twist = torch.where(sound, scale.now * torch.where(sound, reward, 0), -torch.inf)
            drawn, carried = self.resampling(base + twist, draws, int(rows[0]))
            moved = rows[drawn.index.to(rows.device)]
            index.append(moved)
            weights.append(carried)
            twist = twist.nan_to_num(neginf=0.0)
            twists.append(twist if self.released else twist[drawn.index])
            tilts.append(torch.full_like(twist, scale.next / self.alpha))
            temperatures.append(torch.full_like(twist, scale.now))
            figures.append({"ess": drawn.ess, "resampled": drawn.happened, "temperature": scale.now})
        whole = torch.cat(index)
        like = state.log_weights
        after = replace(
            state.take(whole),
            log_weights=_whole(weights, like),
            twist=_whole(twists, like),
            tilt=_whole(tilts, like),
            statistic=_whole(temperatures, like),
        )
        found = estimate.take(whole)
        if self.released:
            found = replace(found, gradient=estimate.gradient, gradient_norm=estimate.gradient_norm)
        return Selected(after, found, whole, _trace(figures))

    def finish(self, state: State, value: Tensor) -> State:
        """See :class:`Selection`: the last twist gives way to the finished picture's reward, at temperature 1."""
        return _finished(state, value.double() / self.alpha)


def _finished(state: State, log_target: Tensor) -> State:
    """Weights at the end, for (P,) log-potentials of the finished pictures; what is not finite has none."""
    log_target = log_target.to(state.log_weights)
    log_target = torch.where(torch.isfinite(log_target), log_target, -torch.inf)
    return replace(state, log_weights=state.log_weights + log_target - state.twist, twist=log_target)


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
        floor: what "max" starts from; minus infinity for nothing.
        released: weights are clamped to 1e10 and forgotten where nothing is resampled, also in the product; the last of
            ``at`` takes the product out of the prediction's statistic, and resamples at an effective size below half whatever
            the threshold; nothing is weighed at the end.
    """

    potential: Potential
    rate: float
    at: tuple[int, ...]
    resampling: Resampling
    floor: float = -torch.inf
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
        index, weights, twists, statistics, figures = [], [], [], [], []
        for rows in state.groups():
            value = estimate.value[rows].double().cpu()
            twist, before = state.twist[rows].double().cpu(), state.statistic[rows].double().cpu()
            if step.index == self.at[0] and self.potential == "max":
                before = torch.full_like(before, self.floor)
            statistic, gain = self._potential(torch.where(torch.isfinite(value), value, -torch.inf), before)
            carried = state.log_weights[rows].double().cpu()
            resampling = self.resampling
            if self.released:
                last = step.index == self.at[-1]
                if last and self.potential != "diff":
                    gain = gain - twist
                if last:
                    resampling = replace(resampling, threshold=0.5)
                gain = gain.clamp(max=math.log(1e10))
            drawn, after = resampling(carried + gain, draws, int(rows[0]))
            kept = gain.nan_to_num(
                neginf=0.0
            )  # The twist of a particle that has no weight left does not matter.
            if self.released:
                after = torch.full_like(after, -math.log(len(rows)))
                kept = kept if drawn.happened else torch.zeros_like(kept)
            index.append(rows[drawn.index.to(rows.device)])
            weights.append(after)
            twists.append((twist + kept)[drawn.index])
            statistics.append(statistic[drawn.index])
            figures.append({"ess": drawn.ess, "resampled": drawn.happened})
        whole, like = torch.cat(index), state.log_weights
        moved = replace(
            state.take(whole),
            log_weights=_whole(weights, like),
            twist=_whole(twists, like),
            statistic=_whole(statistics, like),
        )
        return Selected(moved, estimate.take(whole), whole, _trace(figures))

    def _potential(self, value: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) statistics and log-potentials from values and the statistics so far."""
        if self.potential == "max":
            statistic = torch.maximum(value, before)
        elif self.potential == "add":
            statistic = value + before
        else:
            statistic = value
        gain = self.rate * (statistic - before if self.potential == "diff" else statistic)
        return statistic, gain

    def finish(self, state: State, value: Tensor) -> State:
        """See :class:`Selection`."""
        return state if self.released else _finished(state, self.rate * value.double())
