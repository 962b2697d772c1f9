"""How much of the reward counts at a step: the temperature lambda of tempered targets (DAS, arXiv 2501.05803).

The target of the particles at step i is p(x_i) exp(lambda_i r(x0(x_i)) / alpha), and the proposal made there follows
lambda_{i+1} times the gradient of r / alpha.  Temperatures rise to 1, so that early particles are not weighed by what
is little more than a guess.  Here are numbers alone, for one group, the particles of one prompt.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from align.sampling.resampling import ess, normalised


@dataclass(frozen=True)
class Temperatures:
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
        released: as published: the polynomial's exponent missing in ``next``; the adaptive search by Adam, its bound
            blind to the last temperature, its start told by the loop's index, its ``next`` never ahead of ``now``;
            FreeDoM's ratio neither capped nor guarded; ``next`` unaware that the last state's temperature is 1.

    Raises:
        ValueError: schedule "previous" without the adaptive rule: the temperature would never leave 0.
    """

    rule: Literal["schedule", "adaptive", "freedom", "full"] = "schedule"
    schedule: Literal["exp", "polynomial", "full", "previous"] = "exp"
    gamma: float = 1.0
    exponent: float = 1.0
    start: float = 0.0
    ess: float = 0.5
    released: bool = False

    def __post_init__(self) -> None:
        if self.schedule == "previous" and self.rule != "adaptive":
            raise ValueError(
                f"schedule 'previous' with rule {self.rule!r} never leaves 0: give rule 'adaptive'"
            )

    def first(self, steps: int) -> int:
        """Index of the first of ``steps`` steps that is tempered."""
        # 0.29 of 100 steps is 29, though their product in floating point lies below.
        return math.floor(steps * self.start + 1e-9)

    def tempers(self, index: int, steps: int) -> bool:
        """Whether a step is tempered, and not sampled plainly."""
        return index >= self.first(steps)

    def bounds(self, index: int, steps: int, previous: float = 0.0) -> Temperatures:
        """What is known of a step's temperatures before its rewards are: exact for rules "schedule" and "full", lower
        bounds for "adaptive", nothing for "freedom".

        Args:
            index: of the step, 0 the noisiest; before the first tempered step both are 0.
            steps: how many there are.
            previous: temperature of the step before, for the adaptive rule.
        """
        count = index - self.first(steps)
        if count < 0:
            return Temperatures(0.0, 0.0)
        if self.released:
            return self._released_bounds(count, previous)
        now, following = (1.0, 1.0) if self.rule == "full" else (self._at(count), self._at(count + 1))
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
            base: (P,) log-weights without this step's twist: carried + log p - log q - previous twist.
            reward: (P,) r / alpha.
            correction: (P, ...) guided less unguided noise prediction; read by "freedom" alone.
            gradient: (P, ...) of r / alpha with respect to the latents, likewise.

        Raises:
            ValueError: a log-weight is NaN or infinite where temperatures are sought.
        """
        bounds = self.bounds(index, steps, previous)
        count = index - self.first(steps)
        if count < 0 or self.rule in ("schedule", "full"):
            return bounds
        if self.rule == "freedom":
            ratio = freedom_ratio(correction, gradient, capped=not self.released)
            return Temperatures(ratio, ratio)
        if (index if self.released else count) == 0:
            return Temperatures(0.0, bounds.next) if self.released else bounds
        if bounds.now >= 1:
            return bounds
        target = self.ess * len(base)
        base, reward = (each.detach().to("cpu", torch.float64) for each in (base, reward))
        if self.released:
            now = released_search(base, reward, bounds.now, target)
            return Temperatures(now, now)
        now = find_temperature(lambda scale: ess(base + scale * reward).item(), bounds.now, target)
        return Temperatures(now, max(now, bounds.next))

    def _at(self, count: int) -> float:
        """The schedule ``count`` steps after the first tempered one."""
        if self.schedule == "exp":
            # Far beyond 1 the power would overflow.
            return 1.0 if count * math.log1p(self.gamma) > 1 else min((1 + self.gamma) ** count - 1, 1.0)
        if self.schedule == "polynomial":
            return min(self.gamma * count, 1.0) ** self.exponent
        return 0.0 if self.schedule == "previous" else 1.0

    def _released_bounds(self, count: int, previous: float) -> Temperatures:
        if self.schedule == "previous":
            return Temperatures(previous, previous)
        now, following = self._at(count), self._at(count + 1)
        if self.schedule == "polynomial":
            following = min(self.gamma * (count + 1), 1.0)
        return Temperatures(1.0 if self.rule == "full" else now, following)


def find_temperature(ess_of: Callable[[float], float], lower: float, target: float) -> float:
    """The smallest temperature of [lower, 1] at which ESS falls to ``target``.

    ESS need not fall steadily where particles bring unequal weights: its first passage is sought in cells of 1/64 of
    the range, then bisected, and is met from below (the ESS found does not exceed the target).

    Args:
        ess_of: ESS at a temperature.
        lower: bound, in [0, 1].
        target: ESS to fall to.

    Returns:
        1 if ESS at 1 is still at least the target; ``lower`` if it is already no more there.
    """
    if ess_of(1.0) >= target:
        return 1.0
    if ess_of(lower) <= target:
        return lower
    cells = 64
    edges = [lower + (1 - lower) * cell / cells for cell in range(1, cells)] + [1.0]
    above = lower
    for below in edges:
        if ess_of(below) <= target:
            break
        above = below
    for _ in range(40):
        middle = (above + below) / 2
        if ess_of(middle) <= target:
            below = middle
        else:
            above = middle
    return below


def released_search(base: Tensor, reward: Tensor, lower: float, target: float) -> float:
    """DAS's published search: Adam on (ESS - target)^2 from ``lower``, kept for comparison.

    It moves by about 0.05 at most, and not at all where ESS does not fall with the temperature; above all it never
    leaves equal weights at temperature 0, where ESS is stationary.

    Args:
        base: (P,) log-weights at temperature 0, float64 on the CPU.
        reward: (P,) what a temperature multiplies, likewise.
        lower: bound, in [0, 1].
        target: ESS to fall to.
    """
    scale, first, second = lower, 0.0, 0.0
    for iteration in range(1, 501):
        weights = normalised(base + scale * reward).exp()
        size = 1 / weights.square().sum().item()
        # d ESS / d lambda = 2 ESS (mean of the reward by w - mean by w^2).
        tilt = weights - weights.square() * size
        slope = 2 * (size - target) * 2 * size * (tilt @ reward).item()
        first = 0.9 * first + 0.1 * slope
        second = 0.999 * second + 0.001 * slope**2
        move = 1e-4 * first / (1 - 0.9**iteration) / (math.sqrt(second / (1 - 0.999**iteration)) + 1e-8)
        moved = min(max(scale - move, lower), 1.0)
        settled = abs(moved - scale) < 1e-6
        scale = moved
        if settled:
            break
    return scale


def freedom_ratio(correction: Tensor, gradient: Tensor, *, capped: bool) -> float:
    """FreeDoM's step size: root mean square of the classifier-free correction over that of the gradient.

    Args:
        correction: (P, ...) guided less unguided noise prediction.
        gradient: (P, ...) of r / alpha.
        capped: at 1, also where the gradient vanishes; otherwise as it comes, inf and NaN included.
    """
    over, under = (each.double().square().mean().sqrt() for each in (correction, gradient))
    return (over / under.clamp(min=1e-30)).clamp(max=1).item() if capped else (over / under).item()
