"""What the sampling loop knows of a process: its steps, the kernel of each, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from align.processes.gaussian import Gaussian


@dataclass(frozen=True)
class Step:
    """One step of the reverse process.

    Attributes:
        index: 0 for the noisiest.
        t: training timestep of the latents that come in.
        t_next: training timestep of the latents that go out, at least 0.
        alpha: abar at ``t``, in [0, 1].
        alpha_next: abar at ``t_next``; 1 where clean latents go out.
        fraction: ``t`` over the number of training timesteps, in [0, 1): schedules are placed by it.
        c_out, c_skip: share of the network's x0 and of z in the clean latents; see :meth:`clean`.
    """

    index: int
    t: int
    t_next: int
    alpha: float
    alpha_next: float
    fraction: float
    c_out: float = 1.0
    c_skip: float = 0.0

    def clean(self, x0: Tensor, z: Tensor) -> Tensor:
        """The process's prediction of clean latents, ``c_out x0 + c_skip z``.

        A consistency function is tied to z where there is no noise left; DDIM takes x0 itself.

        Args:
            x0: what noise prediction and schedule say, (P, C, h, w).
            z: latents that came in, (P, C, h, w).
        """
        return x0 if (self.c_out, self.c_skip) == (1, 0) else self.c_out * x0 + self.c_skip * z


class Process(Protocol):
    """A discrete reverse process with Gaussian kernels."""

    @property
    def steps(self) -> Sequence[Step]:
        """From the noisiest on."""
        ...

    def kernel(self, x0: Tensor, eps: Tensor, step: Step) -> Gaussian:
        """p(z_next | z) given the predictions of clean latents and noise, each (P, C, h, w)."""
        ...

    def std(self, step: Step) -> float:
        """Deviation of the kernel; 0 where the step is deterministic."""
        ...

    def renoise(self, z_next: Tensor, step: Step, noise: Tensor) -> Tensor:
        """Back from ``t_next`` to ``t``: time travel."""
        ...
