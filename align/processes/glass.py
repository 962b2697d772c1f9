"""GLASS (arXiv 2509.25170, ICLR 2026): a step that draws noise as a small generation of its own, by the same network.

The noise of z and that of the next z' correlate by rho.  Given clean latents x it is z' = g z + a1 x + s1 e with g = rho s'/s,
a1 = a' - g a, s1 = s' sqrt(1 - rho^2); an inner path y(u) from g z + noise leads there in M steps of Euler's method, on which z and
y - g z are two independent looks at x, together as good as latents of a level between the two.  With M = 1 it is DDIM; more calls
give the next state the spread of x that one prediction lacks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from align.processes.base import Gaussian, Level, Predict, Process, Step
from align.processes.ddim import ddim, scheduler_of
from align.processes.flow import flow
from align.processes.schedule import is_flow


@dataclass(frozen=True)
class Glass(Process):
    """The steps of another process, all but the last drawn in ``inner`` calls.

    Attributes:
        rho: correlation of the noise before and after a step, 0 to below 1; ``None`` for that of ancestral sampling.
        inner: M, calls of a step, the first of which is the evaluation that there is anyway.
        level: the level at which signal over noise, squared, is so much.
    """

    rho: float | None
    inner: int
    level: Callable[[float], Level] = field(compare=False)

    def draw(
        self, proposal: Gaussian, z: Tensor, x0: Tensor, step: Step, noise: Tensor, predict: Predict
    ) -> Tensor:
        """See ``Process``.  The inner path begins with the whole of ``noise``, of deviation 1."""
        g, a1, s1 = _transition(self.rho, step)
        y = noise  # beside g z
        for number, (share, deviation) in enumerate(self._path(a1, s1)):
            if number:
                q = (step.a / step.s) ** 2 + (share / deviation) ** 2
                seen = (step.a / step.s**2 * z + share / deviation**2 * y) / q
                there = self.level(q)
                x0 = predict(there.a * seen, replace(step, time=there.time, a=there.a, s=there.s))
            slope = (s1 - 1) / deviation
            y = y + (slope * y + (a1 - slope * share) * x0) / self.inner
        return g * z + y

    def _path(self, a1: float, s1: float) -> Iterator[tuple[float, float]]:
        """Signal and deviation of y - g z where each inner step begins."""
        for number in range(self.inner):
            u = number / self.inner
            yield u * a1, 1 - u + u * s1


def _transition(rho: float | None, step: Step) -> tuple[float, float, float]:
    """g, a1 and s1 of a step."""
    kept = step.a * step.s_next / (step.s * step.a_next) if rho is None else rho
    g = kept * step.s_next / step.s
    return g, step.a_next - g * step.a, step.s_next * math.sqrt(1 - kept**2)


def glass(schedule: Mapping[str, Any], steps: int, rho: float | None, inner: int) -> Process:
    """The levels of DDIM or of a flow; the last step is deterministic, as theirs is.

    Args:
        schedule: what ``read_schedule`` finds.
        steps: K, number of sampling steps, which take (K - 1) M + 1 calls.
        rho: see ``Glass``.
        inner: likewise.
    """
    flows = is_flow(schedule)
    plain = flow(schedule, steps, 0.0) if flows else ddim(schedule, steps, 0.0)
    *before, last = plain.steps
    noisy = tuple(replace(step, std=_transition(rho, step)[2]) for step in before)
    level = along(schedule) if flows else between(schedule)
    return Glass((*noisy, last), rho, inner, level, initial=plain.initial)


def along(schedule: Mapping[str, Any]) -> Callable[[float], Level]:
    """Levels of a flow by their squared signal over noise."""
    training = schedule.get("num_train_timesteps", 1000)

    def level(q: float) -> Level:
        s = 1 / (1 + math.sqrt(q))
        return Level(s * training, 1 - s, s)

    return level


def between(schedule: Mapping[str, Any]) -> Callable[[float], Level]:
    """Likewise of a diffusion, whose times are interpolated between its whole ones in log q."""
    abar = scheduler_of(schedule).alphas_cumprod.double()
    times = np.arange(len(abar), dtype=float)
    falling = torch.log((1 - abar) / abar).numpy()  # rises with time

    def level(q: float) -> Level:
        return Level.of(float(np.interp(-math.log(q), falling, times)), q / (1 + q))

    return level
