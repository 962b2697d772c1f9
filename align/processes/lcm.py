"""Multistep consistency sampling (Luo et al. 2023, arXiv 2310.04378, algorithm 3) as a Markov kernel.

A step predicts clean latents with the consistency function f(z, t) = c_skip(t) z + c_out(t) x0 and noises them anew
for the next timestep.  The noise is the process's own, so there is no eta; the last step returns f itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
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


class ReleasedLCM(LCM):
    """Guided and weighed as DAS's code was released (arXiv 2501.05803), for comparison.

    Guidance and densities take the deviation ``eta`` sqrt(1 - abar') and the noise keeps its own.  The last step but one
    goes unguided, and is weighed by the ratio of the one before it, once more.  The last, whose clean latents have no
    density, takes eta sqrt(1 - abar) for its deviation, and sqrt(abar) f for the mean of its densities.

    It remembers a step's ratios until the next, by place: particles resampled in between get one another's.

    Args:
        schedule, steps: as for :class:`LCM`.
        eta: share of the kernel's deviation, 0 to 1.
    """

    def __init__(self, schedule: dict[str, Any], steps: int, eta: float) -> None:
        super().__init__(schedule, steps)
        self.eta = eta
        self._memory = _Memory()

    def kernel(self, x0: Tensor, eps: Tensor, step: Step) -> Gaussian:
        """See :class:`LCM`; the deviation is that of the densities."""
        mean, noise = step.alpha_next**0.5 * x0, super().std(step)
        if step.index == len(self.steps) - 1:
            offset = (1 - step.alpha**0.5) * x0
            return _Mismatched(mean, self.std(step), noise, offset, _Memory())
        repeated = step.index == len(self.steps) - 2
        return _Mismatched(mean, self.eta * noise, noise, torch.zeros_like(x0), self._memory, repeated)

    def std(self, step: Step) -> float:
        """Deviation that guidance goes by."""
        if step.index == len(self.steps) - 1:
            return self.eta * (1 - step.alpha) ** 0.5
        return 0.0 if step.index == len(self.steps) - 2 else self.eta * super().std(step)


class _Memory:
    """The log-ratios of the last step that had its own."""

    ratio: Tensor | None = None


@dataclass(frozen=True)
class _Mismatched(Gaussian):
    """A kernel whose density, of deviation ``std``, is not that of what it draws.

    Attributes:
        noise: deviation of what is drawn.
        offset: (P, C, h, w), by how much ``mean`` lies beyond the density's.
        memory: where the ratios are kept.
        repeated: give those that were kept instead of its own.
    """

    noise: float
    offset: Tensor
    memory: _Memory
    repeated: bool = False

    def sample(self, noise: Tensor) -> Tensor:
        """See :class:`Gaussian`."""
        return self.mean + self.noise * noise

    def shifted(self, shift: Tensor) -> Gaussian:
        """See :class:`Gaussian`."""
        return replace(self, mean=self.mean + shift)

    def log_ratio(self, proposal: Gaussian, noise: Tensor) -> Tensor:
        """-<d, e> / std^2 - |d|^2 / (2 std^2), e = z less the mean of the proposal's density."""
        if self.repeated:
            kept = self.memory.ratio
            return kept if kept is not None else torch.zeros(len(noise), device=noise.device)
        moved, drawn = (proposal.mean - self.mean) / self.std, (self.noise * noise + self.offset) / self.std
        kind = torch.float32 if moved.device.type == "mps" else torch.float64
        moved, drawn = moved.flatten(1).to(kind), drawn.flatten(1).to(kind)
        self.memory.ratio = -(moved * drawn).sum(dim=1) - moved.square().sum(dim=1) / 2
        return self.memory.ratio


def boundary(scaled: float) -> tuple[float, float]:
    """(c_out, c_skip) of a scaled timestep: (0, 1) at 0, where f(z, 0) = z, and nearly (1, 0) at all that are used."""
    squared = scaled**2 + SIGMA_DATA**2
    return scaled / squared**0.5, SIGMA_DATA**2 / squared
