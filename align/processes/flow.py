"""Flow matching (rectified flow): z = (1 - s) x0 + s eps, s from 1 to 0, and a network that predicts v = eps - x0.

Divided by sqrt((1 - s)^2 + s^2) it is a variance-preserving process with the same x0 and the same eps, so that the kernel, the way
back and what guidance does are those of ``base``.  A published program's own noise: ``align.processes.sde``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from inspect import signature
from typing import Any, Literal

import numpy as np
from diffusers import FlowMatchEulerDiscreteScheduler

from align.processes.base import Level, Process, Step, ancestral, chain

Kernel = Literal["eta", "cps", "stochastic"]
Phases = Literal["snr", "steps"]
_KEYS = signature(FlowMatchEulerDiscreteScheduler.__init__).parameters


def flow(
    schedule: Mapping[str, Any],
    steps: int,
    eta: float,
    kernel: Kernel = "eta",
    phases: Phases = "snr",
) -> Process:
    """The levels of a checkpoint's schedule; the last step ends at clean latents and is deterministic.

    Args:
        schedule: see ``levels``.
        steps: number of sampling steps.
        eta: how much of the noise is new, 0 to 1.
        kernel: the deviation: ``eta`` times the ancestral one, as DDIM's, so that 0 is Euler's method; ``cps``
            s' sin(eta pi / 2) (Flow-CPS); ``stochastic`` eta s', at eta = 1 all of it, as a consistency model takes its steps.
        phases: a step's fraction, see ``placed``.

    Raises:
        ValueError: eta is out of range, or a dynamic shift has no ``mu``.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must be 0 to 1, not {eta}")
    deviations: dict[Kernel, Callable[[Level, Level], float]] = {
        "eta": lambda here, there: eta * ancestral(here, there),
        "cps": lambda here, there: there.s * math.sin(eta * math.pi / 2),
        "stochastic": lambda here, there: eta * there.s,
    }
    training = schedule.get("num_train_timesteps", 1000)
    return Process(placed(chain(levels(schedule, steps), training, deviations[kernel]), phases))


def levels(schedule: Mapping[str, Any], steps: int) -> list[Level]:
    """The levels of a number of steps as diffusers' scheduler computes them, from the noisiest to clean latents.

    Args:
        schedule: what ``read_schedule`` finds, and of the backbone's own ``mu``, the dynamic shift of its picture's size, if it
            shifts dynamically, ``mu_step``, which is added to it for each of the steps, and ``spaced``, the highest of raw levels down to the Nth part of it, 1 as
            FLUX's pipeline hands them over; ``False`` for those of the scheduler.
        steps: N, number of sampling steps.
    """
    scheduler = FlowMatchEulerDiscreteScheduler(
        **{key: value for key, value in schedule.items() if key in _KEYS}
    )
    top = float(schedule.get("spaced", False))
    raw = np.linspace(top, top / steps, steps).tolist() if top else None
    mu = schedule.get("mu")
    if mu is not None:
        mu += steps * schedule.get("mu_step", 0.0)
    scheduler.set_timesteps(steps, sigmas=raw, mu=mu)
    times = [*scheduler.timesteps.tolist(), 0.0]
    return [Level(time, 1 - s, s) for time, s in zip(times, scheduler.sigmas.tolist(), strict=True)]


def placed(steps: Sequence[Step], phases: Phases) -> tuple[Step, ...]:
    """Steps with their places among Stable Diffusion's timesteps.

    A fraction is the timestep of equal signal-to-noise ratio over 1000 (``snr``), or the share of steps that are left
    (``steps``): the same schedule then costs as much as on Stable Diffusion.
    """
    number = len(steps)
    times = [equal_timestep(step.a, step.s) for step in steps]
    return tuple(
        replace(
            step,
            fraction=time / 1000 if phases == "snr" else (number - step.index) / number,
            timestep=round(time),
        )
        for step, time in zip(steps, times, strict=True)
    )


def equal_timestep(a: float, s: float) -> float:
    """Stable Diffusion's timestep at which signal and noise are as ``a`` to ``s``, between its whole ones; 999 and 0 beyond them."""
    ratio = math.log(a / s) if a > 0 else -math.inf
    return float(np.interp(-ratio, *_stable_diffusion()))


@cache
def _stable_diffusion() -> tuple[np.ndarray, np.ndarray]:
    """Minus the logarithm of signal over noise, which rises, at each timestep of Stable Diffusion 1.5 and XL."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    abar = np.cumprod(1 - betas)
    return np.log((1 - abar) / abar) / 2, np.arange(1000.0)
