"""Random numbers that depend only on what they are for.

Every draw has a key: run seed, noise key (the prompt, if nothing else is given), sample, particle, purpose, step, round.  Neither call order nor batch,
shard or device can change it, so leaving a part of a method out leaves all other noise as it was.  Drawn on the
CPU, where torch's generator is the same on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from align.processes.base import Gaussian
from align.sampling.host import send
from align.sampling.state import State


class Noise(Protocol):
    """A source of random draws; given, learnt or recorded ones can stand in."""

    def normal(self, purpose: str, step: int, round: int, shape: tuple[int, ...]) -> Tensor:
        """Standard normal float32 of ``shape`` on the CPU, the same for the same arguments."""

    def uniform(self, purpose: str, step: int, round: int, shape: tuple[int, ...]) -> Tensor:
        """Uniform float64 of [0, 1), likewise."""


@dataclass(frozen=True)
class NoiseStream:
    """The draws of one particle of one picture."""

    seed: int
    key: str
    sample: int
    particle: int = 0

    def normal(self, purpose: str, step: int, round: int, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=self._generator(purpose, step, round))

    def uniform(self, purpose: str, step: int, round: int, shape: tuple[int, ...]) -> Tensor:
        return torch.rand(shape, generator=self._generator(purpose, step, round), dtype=torch.float64)

    def _generator(self, purpose: str, step: int, round: int) -> torch.Generator:
        parts = (self.seed, self.sample, self.particle, purpose, step, round, self.key)
        key = "\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass")
        return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(key).digest()[:8], "little"))


@dataclass(frozen=True)
class Given:
    """Draws of which some are given, such as initial noise that is being optimised: they may require a gradient.

    Attributes:
        tensors: given draws by purpose and step, such as ``("initial", 0)``, on any device; of the step's first round.
        noise: where all others come from.
    """

    tensors: Mapping[tuple[str, int], Tensor]
    noise: Noise

    def normal(self, purpose: str, step: int, round: int, shape: tuple[int, ...]) -> Tensor:
        given = self.tensors.get((purpose, step)) if round == 0 else None
        return self.noise.normal(purpose, step, round, shape) if given is None else given

    def uniform(self, purpose: str, step: int, round: int, shape: tuple[int, ...]) -> Tensor:
        return self.noise.uniform(purpose, step, round, shape)


@dataclass(frozen=True)
class Renamed:
    """The draws that a noise has for purposes with a ``suffix``: others than its own, and as many as there are suffixes."""

    noise: Noise
    suffix: str

    def normal(self, purpose: str, step: int, round: int, shape: tuple[int, ...]) -> Tensor:
        return self.noise.normal(purpose + self.suffix, step, round, shape)

    def uniform(self, purpose: str, step: int, round: int, shape: tuple[int, ...]) -> Tensor:
        return self.noise.uniform(purpose + self.suffix, step, round, shape)


def candidate(noise: Noise, number: int) -> Noise:
    """The draws of candidate ``number`` for a particle's next state; the first has the particle's own."""
    return Renamed(noise, f", candidate {number}") if number else noise


Streams = Callable[[int, int], Noise]
"""The noise of (picture, particle)."""


@dataclass(frozen=True)
class Draws:
    """The numbers of P particles at one step and round, of which each has a stream of its ``own``."""

    own: Sequence[Noise]
    step: int
    round: int
    shape: tuple[int, ...]
    device: torch.device

    @staticmethod
    def of(streams: Streams, state: State, step: int, round: int) -> Draws:
        pairs = zip(state.picture.tolist(), state.slots().tolist(), strict=True)
        own = [streams(picture, slot) for picture, slot in pairs]
        return Draws(own, step, round, tuple(state.z.shape[1:]), state.z.device)

    def normal(self, purpose: str) -> Tensor:
        drawn = [noise.normal(purpose, self.step, self.round, self.shape) for noise in self.own]
        if all(one.device.type == "cpu" for one in drawn):
            return send(torch.stack(drawn), self.device)
        return torch.stack([send(one, self.device) for one in drawn])

    def uniform(self, purpose: str, number: int) -> Tensor:
        """(P, number) float64 of [0, 1), on the CPU."""
        return torch.stack([noise.uniform(purpose, self.step, self.round, (number,)) for noise in self.own])

    def of_group(self, row: int, purpose: str) -> Callable[[int], Tensor]:
        """From a number n to (n,) uniform draws for a group whose first particle is ``row``."""
        return lambda number: self.own[row].uniform(purpose, self.step, self.round, (number,))

    def take(self, rows: Tensor) -> Draws:
        return replace(self, own=[self.own[row] for row in rows.tolist()])


def drawn(kernel: Gaussian, draws: Draws) -> Tensor:
    """(P, ...) next latents, for which a step without noise draws none."""
    return kernel.sample(draws.normal("step")) if kernel.std > 0 else kernel.mean
