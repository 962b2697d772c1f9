"""DDIM (Song et al. 2021) as a Markov kernel; eta = 1 is ancestral sampling, eta = 0 deterministic.

The noise schedule and the timesteps are a diffusers scheduler's; mean and variance of the kernel, which
guidance and weights need apart, are written here once (equations 12 and 16 of the paper).
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

from diffusers import DDIMScheduler
from torch import Tensor

from align.processes.base import Step
from align.processes.gaussian import Gaussian, renoise
from align.processes.schedule import timesteps

_KEYS = signature(DDIMScheduler.__init__).parameters


def scheduler_of(schedule: Mapping[str, Any]) -> DDIMScheduler:
    """The levels of a schedule (``alphas_cumprod``, ``final_alpha_cumprod``), as diffusers computes them."""
    return DDIMScheduler(**{key: value for key, value in schedule.items() if key in _KEYS})


class DDIM:
    """The process of a checkpoint's schedule.

    A step ends where the next begins, and the last at the schedule's final level.

    Args:
        schedule: config of a diffusers scheduler (``scheduler.config``).
        steps: number of sampling steps, as many as the schedule has different timesteps for.
        eta: share of the ancestral noise, 0 to 1.

    Raises:
        ValueError: steps or eta out of range.
    """

    def __init__(self, schedule: dict[str, Any], steps: int, eta: float) -> None:
        if not 0 <= eta <= 1:
            raise ValueError(f"eta must be 0 to 1, not {eta}")
        scheduler = scheduler_of(schedule)
        training = int(scheduler.config.num_train_timesteps)
        times = timesteps(scheduler.config, steps)
        alphas = scheduler.alphas_cumprod.double()
        self.eta = eta
        following = [(t, float(alphas[t])) for t in times[1:]] + [(0, float(scheduler.final_alpha_cumprod))]
        self.steps = [
            Step(
                index=index,
                t=t,
                t_next=after,
                alpha=float(alphas[t]),
                alpha_next=level,
                fraction=t / training,
            )
            for index, (t, (after, level)) in enumerate(zip(times, following, strict=True))
        ]

    def kernel(self, x0: Tensor, eps: Tensor, step: Step) -> Gaussian:
        """p(z_next | z) given the predictions of clean latents and noise, each (P, C, h, w)."""
        std = self.std(step)
        direction = max(1 - step.alpha_next - std**2, 0.0) ** 0.5
        return Gaussian(step.alpha_next**0.5 * x0 + direction * eps, std)

    def std(self, step: Step) -> float:
        """Deviation of the kernel: eta sqrt((1-abar')/(1-abar)) sqrt(1-abar/abar')."""
        variance = (1 - step.alpha_next) / (1 - step.alpha) * (1 - step.alpha / step.alpha_next)
        return self.eta * max(variance, 0.0) ** 0.5

    def renoise(self, z_next: Tensor, step: Step, noise: Tensor) -> Tensor:
        """Back from ``t_next`` to ``t``: time travel."""
        return renoise(z_next, step.alpha / step.alpha_next, noise)
