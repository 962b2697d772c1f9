"""DAS's temperatures as they were released."""

from __future__ import annotations

import math

from torch import Tensor

from align.sampling.resampling import normalised
from align.sampling.tempering import Temperatures, Tempering


class PublishedLadder(Tempering):
    """The ladder of DAS's code (quirk ``published_ladder``).

    The polynomial's exponent is missing in ``next``; the adaptive search is by Adam, its bound blind to the last temperature,
    its start told by the loop's index, its ``next`` never ahead of ``now``; FreeDoM's ratio is neither capped nor guarded;
    ``next`` does not know that the last state's temperature is 1.
    """

    def bounds(self, index: int, steps: int, previous: float = 0.0) -> Temperatures:
        count = index - self.first(steps)
        if count < 0:
            return Temperatures(0.0, 0.0)
        if self.schedule == "previous":
            return Temperatures(previous, previous)
        following = self.rung(count + 1)
        if self.schedule == "polynomial":
            following = min(self.gamma * (count + 1), 1.0)
        return Temperatures(1.0 if self.rule == "full" else self.rung(count), following)

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
        bounds = self.bounds(index, steps, previous)
        if not self.tempers(index, steps) or self.rule in ("schedule", "full"):
            return bounds
        if self.rule == "freedom":
            ratio = float(correction.double().norm() / gradient.double().norm())
            return Temperatures(ratio, ratio)
        if index == 0:
            return Temperatures(0.0, bounds.next)
        if bounds.now >= 1:
            return bounds
        now = adam_search(base, reward, bounds.now, self.ess * len(base))
        return Temperatures(now, now)


def adam_search(base: Tensor, reward: Tensor, lower: float, target: float) -> float:
    """Adam on (ESS - target)^2 from ``lower`` in [0, 1], for (P,) log-weights at temperature 0 and what it multiplies, float64.

    It moves by about 0.05 at most, and not at all where ESS does not fall with the temperature; above all it never
    leaves equal weights at temperature 0, where ESS is stationary.
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
