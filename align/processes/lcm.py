"""Multistep consistency sampling (Luo et al. 2023, arXiv 2310.04378, algorithm 3) as a Markov kernel.

A step predicts clean latents with the consistency function f(z, t) = c_skip(t) z + c_out(t) x0 and noises them anew
for the next timestep.  The noise is the process's own, so there is no eta; the last step returns f itself.
"""

from __future__ import annotations

from typing import Any

from diffusers import LCMScheduler
from torch import Tensor

from align.processes.base import Step
from align.processes.gaussian import Gaussian, renoise

SIGMA_DATA = 0.5
"""sigma of the boundary scalings, the same for all published models."""


class LCM:
    """The process of a latent consistency model's schedule.

    Args:
        schedule: config of a diffusers scheduler (``scheduler.config``); ``original_inference_steps`` and
            ``timestep_scaling`` are 50 and 10 unless it says otherwise.
        steps: number of sampling steps, 1 to the number of steps that the model was distilled on.

    Raises:
        ValueError: steps out of range.
    """

    def __init__(self, schedule: dict[str, Any], steps: int) -> None:
        scheduler = LCMScheduler.from_config(schedule)
        distilled = int(scheduler.config.original_inference_steps)
        if not 1 <= steps <= distilled:
            raise ValueError(f"steps must be 1 to {distilled}, not {steps}")
        scheduler.set_timesteps(steps)
        alphas = scheduler.alphas_cumprod.double()
        training = int(scheduler.config.num_train_timesteps)
        times = [int(t) for t in scheduler.timesteps]
        scalings = [boundary(t * scheduler.config.timestep_scaling) for t in times]
        # Clean latents have no noise left: their level is 1 whatever the schedule calls its last.
        following = [(t, float(alphas[t])) for t in times[1:]] + [(0, 1.0)]
        self.steps = [
            Step(
                index=index,
                t=t,
                t_next=after,
                alpha=float(alphas[t]),
                alpha_next=level,
                fraction=t / training,
                c_out=c_out,
                c_skip=c_skip,
            )
            for index, (t, (after, level), (c_out, c_skip)) in enumerate(
                zip(times, following, scalings, strict=True)
            )
        ]

    def kernel(self, x0: Tensor, eps: Tensor, step: Step) -> Gaussian:
        """N(sqrt(abar') x0, 1 - abar'), x0 (P, C, h, w) as :meth:`Step.clean` has it; ``eps`` has no part in it."""
        return Gaussian(step.alpha_next**0.5 * x0, self.std(step))

    def std(self, step: Step) -> float:
        """Deviation of the kernel: sqrt(1 - abar'), 0 at the last step."""
        return (1 - step.alpha_next) ** 0.5

    def renoise(self, z_next: Tensor, step: Step, noise: Tensor) -> Tensor:
        """Back from ``t_next`` to ``t``: time travel."""
        return renoise(z_next, step.alpha / step.alpha_next, noise)


def boundary(scaled: float) -> tuple[float, float]:
    """(c_out, c_skip) of a scaled timestep: (0, 1) at 0, where f(z, 0) = z, and nearly (1, 0) at all that are used."""
    squared = scaled**2 + SIGMA_DATA**2
    return scaled / squared**0.5, SIGMA_DATA**2 / squared
