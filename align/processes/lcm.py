"""Multistep consistency sampling (Luo et al. 2023, arXiv 2310.04378, algorithm 3): the steps of a few-step process.

A step predicts clean latents with the consistency function f(z, t) = c_skip(t) z + c_out(t) x0 and noises them anew
for the next timestep: a kernel all of whose noise is its own, so there is no eta.  The last step returns f itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from diffusers import LCMScheduler

from align.processes.base import Level, Process, chain

SIGMA_DATA = 0.5
"""sigma of the boundary scalings, the same for all published models."""


def lcm(schedule: Mapping[str, Any], steps: int) -> Process:
    """The process of a latent consistency model's schedule.

    Args:
        schedule: config of a diffusers scheduler (``scheduler.config``); ``original_inference_steps`` and
            ``timestep_scaling`` are 50 and 10 unless it says otherwise.
        steps: number of sampling steps, 1 to the number of steps that the model was distilled on.

    Raises:
        ValueError: steps out of range.
    """
    scheduler = LCMScheduler.from_config(schedule)
    distilled = int(scheduler.config.original_inference_steps)
    if not 1 <= steps <= distilled:
        raise ValueError(f"steps must be 1 to {distilled}, not {steps}")
    scheduler.set_timesteps(steps)
    abar = scheduler.alphas_cumprod.double().tolist()
    levels = [Level.of(t, abar[t]) for t in scheduler.timesteps.tolist()]
    # Clean latents have no noise left: their level is 1 whatever the schedule calls its last.
    levels.append(Level.of(0, 1.0))
    plain = chain(levels, scheduler.config.num_train_timesteps, lambda here, there: there.s)
    scalings = (boundary(step.time * scheduler.config.timestep_scaling) for step in plain)
    return Process(
        tuple(
            replace(step, c_out=out, c_skip=skip) for step, (out, skip) in zip(plain, scalings, strict=True)
        )
    )


def boundary(scaled: float) -> tuple[float, float]:
    """(c_out, c_skip) of a scaled timestep: (0, 1) at 0, where f(z, 0) = z, and nearly (1, 0) at all that are used."""
    squared = scaled**2 + SIGMA_DATA**2
    return scaled / squared**0.5, SIGMA_DATA**2 / squared
