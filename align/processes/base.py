"""What the sampling loop knows of a process: its steps, one kernel, one way back, one reading of the network's output.

Everywhere z = a x0 + s eps.  DDIM has a = sqrt(abar) and s = sqrt(1 - abar), flow matching a = 1 - sigma and s = sigma; a
process is where its steps lie and how much of their noise is new.  Nothing divides by ``a``, which is 0 where a flow begins,
but the clean latents that belong to a prediction of noise alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class Step:
    """One step of the reverse process.

    Attributes:
        index: 0 for the noisiest.
        time, time_next: what the network is fed of the latents that come in, and that go out.
        a, s: share of signal and of noise in the latents that come in; ``s`` is above 0.
        a_next, s_next: of those that go out; 1 and 0 where they are clean.
        std: deviation of the kernel; 0 where the step is deterministic.
        fraction: share of the process that is still to come, in [0, 1]: schedules are placed by it.
        timestep: of Stable Diffusion, at which as much is noise: what a judge of noisy pictures was trained with.
        c_out, c_skip: clean latents are ``c_out x0 + c_skip z``.  A consistency function is tied to z where there is no
            noise left; everything else takes x0 itself.
    """

    index: int
    time: float
    time_next: float
    a: float
    s: float
    a_next: float
    s_next: float
    std: float
    fraction: float
    timestep: int
    c_out: float = 1.0
    c_skip: float = 0.0


def together(steps: Sequence[Step], like: Tensor) -> Step:
    """Steps of P rows as one, for a call in which each row of ``like``, (P, ...), is at its own.

    Its ``time`` is (P,), its shares of signal and noise multiply the rows: what a UNet and ``clean_and_noise`` read of it.
    """

    def column(name: str) -> Any:
        return like.new_tensor([getattr(step, name) for step in steps]).view(-1, *(1,) * (like.ndim - 1))

    if len(set(steps)) == 1:
        return steps[0]
    times: Any = torch.tensor([step.time for step in steps], device=like.device)
    return replace(steps[0], time=times, a=column("a"), s=column("s"))


class Level(NamedTuple):
    """A place between steps: the network's time there, and the shares of signal and noise."""

    time: float
    a: float
    s: float

    @staticmethod
    def of(time: float, abar: float) -> Level:
        """Of a variance-preserving process."""
        return Level(float(time), abar**0.5, (1 - abar) ** 0.5)


@dataclass(frozen=True)
class Gaussian:
    """Isotropic Gaussian over latents: ``mean`` (P, ...), ``std`` a scalar >= 0 shared by all elements."""

    mean: Tensor
    std: float

    def sample(self, noise: Tensor) -> Tensor:
        """``mean + std * noise``; ``noise`` (P, ...) standard normal."""
        return self.mean + self.std * noise

    def shifted(self, shift: Tensor) -> Gaussian:
        return Gaussian(self.mean + shift, self.std)

    def take(self, index: Tensor) -> Gaussian:
        """Rows by (Q,) index on their device."""
        return replace(self, mean=self.mean[index])

    def log_ratio(self, proposal: Gaussian, noise: Tensor) -> Tensor:
        """Log p(z) - log q(z) at z = ``proposal.sample(noise)``, this being p: (P,) float64.

        With d the difference of the means it is -<d, noise> / std - |d|^2 / (2 std^2): the densities themselves are
        large numbers whose difference float32 does not hold.

        Raises:
            ValueError: the kernel is deterministic (``std`` 0), so there is no density.
        """
        if self.std == 0:
            raise ValueError("a deterministic kernel (eta=0) has no density")
        moved = (proposal.mean - self.mean).flatten(1)
        kind = torch.float32 if moved.device.type == "mps" else torch.float64
        moved, drawn = moved.to(kind) / self.std, noise.flatten(1).to(kind)
        return -(moved * drawn).sum(dim=1) - moved.square().sum(dim=1) / 2


@dataclass(frozen=True)
class Pulled(Gaussian):
    """A Gaussian of whose noise's variance a share (P,) is a given vector ``along`` (P, ...) that passes for noise.

    It has no density with respect to the Gaussian itself.
    """

    along: Tensor
    share: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        share = self.share.view(-1, *(1,) * (noise.ndim - 1)).to(noise)
        return super().sample(share.sqrt() * self.along + (1 - share).sqrt() * noise)

    def take(self, index: Tensor) -> Gaussian:
        return replace(self, mean=self.mean[index], along=self.along[index], share=self.share[index])


def chain(levels: Sequence[Level], training: float, std: Callable[[Level, Level], float]) -> tuple[Step, ...]:
    """The steps from each level to the next.

    Args:
        levels: from the noisiest on, one more than there are steps.
        training: the network's time at which nothing but noise is left.
        std: the kernel's deviation between two levels.
    """
    return tuple(
        Step(
            index,
            here.time,
            there.time,
            *here[1:],
            *there[1:],
            std(here, there),
            here.time / training,
            int(here.time),
        )
        for index, (here, there) in enumerate(pairwise(levels))
    )


def ancestral(here: Level, there: Level) -> float:
    """Deviation (s'/s) sqrt(s^2 - (a s'/a')^2) of p(z' | z, x0) under the forward process: all noise that a step can renew."""
    return there.s / here.s * _added(here.a, here.s, there.a, there.s)


def _added(a: float, s: float, a_next: float, s_next: float) -> float:
    """Deviation of what the forward process adds from a level to the noisier one before it."""
    return math.sqrt(max(s**2 - (a * s_next / a_next) ** 2, 0.0))


def kernel(x0: Tensor, eps: Tensor, step: Step) -> Gaussian:
    """p(z' | z): mean a' x0 + sqrt(s'^2 - g^2) eps and deviation g, given predictions (P, ...) of clean latents and noise.

    DDIM's (Song et al. 2021, equation 12) as well as a flow's: of the noise s' that belongs to z', g is drawn anew.  With
    g = 0 the step is DDIM's or Euler's, with all that can be renewed ancestral, with g = s' a consistency model's.
    """
    kept = max(step.s_next**2 - step.std**2, 0.0) ** 0.5
    return Gaussian(step.a_next * x0 + kept * eps if kept else step.a_next * x0, step.std)


def renoise(z_next: Tensor, step: Step, noise: Tensor) -> Tensor:
    """Back from where a step ends to where it began, as the forward process goes: time travel.

    (a/a') z' + sqrt(s^2 - (a s'/a')^2) noise, ``z_next`` and standard normal ``noise`` (P, ...).
    """
    added = _added(step.a, step.s, step.a_next, step.s_next)
    return step.a / step.a_next * z_next + added * noise


def clean_and_noise(output: Tensor, z: Tensor, step: Step, prediction_type: str) -> tuple[Tensor, Tensor]:
    """Clean latents and noise (P, ...) that the network's ``output`` for latents ``z`` stands for.

    It can be ``epsilon``, ``sample`` (x0), ``v_prediction`` (a eps - s x0, where a^2 + s^2 = 1) or ``velocity`` (eps - x0, where
    a + s = 1).
    """
    a, s = step.a, step.s
    if prediction_type == "epsilon":
        x0, eps = (z - s * output) / a, output
    elif prediction_type == "v_prediction":
        x0, eps = a * z - s * output, a * output + s * z
    elif prediction_type == "velocity":
        x0, eps = z - s * output, z + a * output
    elif prediction_type == "sample":
        x0, eps = output, (z - a * output) / s
    else:
        raise ValueError(f"prediction type {prediction_type!r} is not supported")
    if (step.c_out, step.c_skip) != (1, 0):
        x0 = step.c_out * x0 + step.c_skip * z
    return x0, eps


def noise_slope(step: Step, prediction_type: str) -> float:
    """By how much the noise of ``clean_and_noise`` changes with the network's output."""
    slopes = {"epsilon": 1.0, "v_prediction": step.a, "velocity": step.a, "sample": -step.a / step.s}
    return slopes[prediction_type]


Predict = Callable[[Tensor, Step], Tensor]
"""The network's clean prediction (P, ...) for other latents of the same particles, at a level of its own."""


@dataclass(frozen=True)
class Process:
    """A discrete reverse process with Gaussian kernels.

    Attributes:
        steps: from the noisiest on.
        initial: deviation of the latents that the first one takes.
    """

    steps: tuple[Step, ...]
    initial: float = field(default=1.0, kw_only=True)

    def kernel(self, x0: Tensor, eps: Tensor, step: Step) -> Gaussian:
        """See ``kernel``; published programs have others."""
        return kernel(x0, eps, step)

    def draw(
        self, proposal: Gaussian, z: Tensor, x0: Tensor, step: Step, noise: Tensor, predict: Predict
    ) -> Tensor:
        """Next latents (P, ...) where a step draws noise, of latents and their clean predictions; ``predict`` is there to ask again."""
        return proposal.sample(noise)
