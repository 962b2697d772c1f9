"""How much of the reward counts at a step: the temperature lambda of tempered targets (DAS, arXiv 2501.05803).

The target of the particles at step i is p(x_i) exp(lambda_i r(x0(x_i)) / alpha), and the proposal made there follows
lambda_{i+1} times the gradient of r / alpha.  Temperatures rise to 1, so that early particles are not weighed by what
is little more than a guess.  Here are numbers alone, for one group, the particles of one prompt.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor

from align.sampling.resampling import ess


class Temperatures(NamedTuple):
    """``now`` weighs the reward in the twist of a step's state, ``next`` the gradient in the proposal made from it."""

    now: float
    next: float


@dataclass(frozen=True)
class Tempering:
    """The ladder of temperatures.

    Attributes:
        rule: "schedule" follows ``schedule``; "adaptive" finds the temperature at which ESS falls to ``ess``, with the
            schedule as lower bound; "freedom" is FreeDoM's ratio of the classifier-free correction to the gradient, which
            makes no ladder towards the target; "full" is 1 throughout.
        schedule: "exp", (1 + gamma)^k - 1; "polynomial", (gamma k)^exponent; both at most 1 and k counted from the first
            tempered step. "full" is 1. "previous" bounds nothing but the fall below the last temperature; adaptive alone.
        gamma: above 0.
        exponent: of the polynomial, above 0.
        start: share of steps sampled plainly before the first tempered one, in [0, 1).
        ess: share of particles to which the adaptive rule lets ESS fall, in (0, 1].
    """

    rule: Literal["schedule", "adaptive", "freedom", "full"] = "schedule"
    schedule: Literal["exp", "polynomial", "full", "previous"] = "exp"
    gamma: float = 1.0
    exponent: float = 1.0
    start: float = 0.0
    ess: float = 0.5

    def first(self, steps: int) -> int:
        # 0.29 of 100 steps is 29, though their product in floating point lies below.
        return math.floor(steps * self.start + 1e-9)

    def tempers(self, index: int, steps: int) -> bool:
        return index >= self.first(steps)

    def bounds(self, index: int, steps: int, previous: float = 0.0) -> Temperatures:
        """What is known of a step's temperatures before its rewards are: exact for rules "schedule" and "full", lower
        bounds for "adaptive", nothing for "freedom".  Before the first tempered step both are 0.
        """
        count = index - self.first(steps)
        if count < 0:
            return Temperatures(0.0, 0.0)
        now, following = (1.0, 1.0) if self.rule == "full" else (self.rung(count), self.rung(count + 1))
        if self.rule == "adaptive":
            now = max(now, previous)
        # The last proposal makes the final state, whose target is the untempered one.
        return Temperatures(now, 1.0 if index == steps - 1 else max(now, following))

    def temperatures(
        self,
        index: int,
        steps: int,
        previous: float,
        *,
        base: Tensor,
        reward: Tensor,
        correction: Tensor,
        gradient: Tensor,
    ) -> Temperatures:
        """Both temperatures of a step.

        Args:
            index: of the step, 0 the noisiest.
            steps: how many there are.
            previous: temperature ``now`` of the step before; 0 at the first.
            base: (P,) float64 log-weights without the previous twist.
            reward: (P,) float64, r / alpha.
            correction: (P,) norms of guided less unguided noise predictions; read by "freedom" alone.
            gradient: (P,) norms of the gradients of r / alpha with respect to the latents, likewise.

        Raises:
            ValueError: a log-weight is NaN or infinite where temperatures are sought.
        """
        bounds = self.bounds(index, steps, previous)
        count = index - self.first(steps)
        if count < 0 or self.rule in ("schedule", "full"):
            return bounds
        if self.rule == "freedom":
            ratio = freedom_ratio(correction, gradient)
            return Temperatures(ratio, ratio)
        if count == 0 or bounds.now >= 1:
            return bounds
        target = self.ess * len(base)
        now = find_temperature(lambda scale: ess(base + scale * reward).item(), bounds.now, target)
        return Temperatures(now, max(now, bounds.next))

    def rung(self, count: int) -> float:
        """The schedule ``count`` steps after the first tempered one."""
        if self.schedule == "exp":
            # Far beyond 1 the power would overflow.
            return 1.0 if count * math.log1p(self.gamma) > 1 else min((1 + self.gamma) ** count - 1, 1.0)
        if self.schedule == "polynomial":
            return math.pow(min(self.gamma * count, 1.0), self.exponent)
        return 0.0 if self.schedule == "previous" else 1.0


def find_temperature(ess_of: Callable[[float], float], lower: float, target: float) -> float:
    """The smallest temperature of [lower, 1] at which ESS falls to ``target``.

    ESS need not fall steadily where particles bring unequal weights: its first passage is sought in cells of 1/64 of
    the range, then bisected, and is met from below (the ESS found does not exceed the target).

    Returns:
        1 if ESS at 1 is still at least the target; ``lower`` if it is already no more there.
    """
    if ess_of(1.0) >= target:
        return 1.0
    if ess_of(lower) <= target:
        return lower
    edges = [lower + (1 - lower) * cell / 64 for cell in range(1, 64)] + [1.0]
    above = lower
    for below in edges:
        if ess_of(below) <= target:
            break
        above = below
    for _ in range(40):
        middle = (above + below) / 2
        above, below = (above, middle) if ess_of(middle) <= target else (middle, below)
    return below


def freedom_ratio(correction: Tensor, gradient: Tensor) -> float:
    """FreeDoM's step size: root mean square of the classifier-free correction over that of the gradient, at most 1, by (P,)
    norms of both.
    """
    ratio = correction.double().norm() / gradient.double().norm().clamp(min=1e-30)
    return float(ratio.clamp(max=1))
