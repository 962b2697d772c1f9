"""Few steps of a diffusion that was distilled for them (SD-Turbo, SDXL-Turbo, Hyper-SD, DMD2): listed timesteps, clean latents at the end.

The network is asked where it was trained, so the timesteps are given or trail the training's (999, 749, 499, 249), and the last step
returns its clean latents themselves, whatever the schedule calls its last level.  A step renews all noise that it can without a
change of the marginals (``eta``, ancestral Euler: DDIM at eta = 1 in other coordinates, x = z / a), or all that there is
(``stochastic``, as a consistency model).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from align.processes.base import Level, Process, ancestral, chain
from align.processes.ddim import scheduler_of
from align.processes.schedule import listed_timesteps

Renewal = Literal["eta", "stochastic"]
Start = Literal["level", "unit"]


def few(
    schedule: Mapping[str, Any],
    steps: int,
    eta: float,
    kernel: Renewal = "eta",
    start: Start = "level",
    times: Sequence[int] | None = None,
) -> Process:
    """The steps from each timestep to the next, and from the last to clean latents.

    Args:
        schedule: config of a diffusers scheduler (``scheduler.config``); its spacing and final level are not read.
        steps: number of sampling steps.
        eta: share of the noise that is renewed, 0 to 1.
        kernel: of the ancestral noise (``eta``), or of all of the next level's (``stochastic``).
        start: deviation of the first latents: that of the noise at their level, sqrt(1 - abar), as Euler's schedulers scale
            theirs, or 1, as DDIM's and LCM's.
        times: timesteps, falling; ``None`` for evenly trailing ones.

    Raises:
        ValueError: eta is out of range, or there are no such timesteps.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must be 0 to 1, not {eta}")
    scheduler = scheduler_of(schedule)
    abar = scheduler.alphas_cumprod.double().tolist()
    levels = [Level.of(t, abar[t]) for t in listed_timesteps(scheduler.config, steps, times)]
    levels.append(Level.of(0, 1.0))
    deviation = ancestral if kernel == "eta" else lambda here, there: there.s
    made = chain(
        levels, scheduler.config.num_train_timesteps, lambda here, there: eta * deviation(here, there)
    )
    return Process(made, initial=levels[0].s if start == "level" else 1.0)
