"""DDIM (Song et al. 2021): the steps of a checkpoint's schedule; eta = 1 is ancestral sampling, eta = 0 deterministic.

The noise schedule is a diffusers scheduler's.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

from diffusers import DDIMScheduler

from align.processes.base import Level, Process, ancestral, chain
from align.processes.schedule import timesteps

_KEYS = signature(DDIMScheduler.__init__).parameters


def scheduler_of(schedule: Mapping[str, Any]) -> DDIMScheduler:
    """The levels of a schedule (``alphas_cumprod``, ``final_alpha_cumprod``), as diffusers computes them."""
    return DDIMScheduler(**{key: value for key, value in schedule.items() if key in _KEYS})


def ddim(schedule: Mapping[str, Any], steps: int, eta: float) -> Process:
    """A step ends where the next begins, and the last at the schedule's final level.

    Args:
        schedule: config of a diffusers scheduler (``scheduler.config``).
        steps: number of sampling steps.
        eta: share of the ancestral noise, 0 to 1.

    Raises:
        ValueError: eta is out of range, or the schedule has not as many different timesteps.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must be 0 to 1, not {eta}")
    scheduler = scheduler_of(schedule)
    abar = scheduler.alphas_cumprod.double().tolist()
    levels = [Level.of(t, abar[t]) for t in timesteps(scheduler.config, steps)]
    levels.append(Level.of(0, float(scheduler.final_alpha_cumprod)))
    training = scheduler.config.num_train_timesteps
    return Process(chain(levels, training, lambda here, there: eta * ancestral(here, there)))
