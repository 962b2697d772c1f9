"""Random numbers that depend only on what they are for.

Every draw has a key: run seed, prompt, sample, particle, purpose, step, round.  Neither call order nor batch,
shard or device can change it, so leaving a part of a method out leaves all other noise as it was.  Drawn on the
CPU, where torch's generator is the same on every machine.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Noise(Protocol):
    """A source of random draws; recorded draws of a golden trace can stand in."""

    def normal(self, purpose: str, step: int, round: int, shape: tuple[int, ...]) -> Tensor:
        """Standard normal float32 of ``shape`` on the CPU, the same for the same arguments."""
        ...

    def uniform(self, purpose: str, step: int, round: int, shape: tuple[int, ...]) -> Tensor:
        """Uniform float64 of [0, 1), likewise."""
        ...


@dataclass(frozen=True)
class NoiseStream:
    """The draws of one particle of one picture."""

    seed: int
    prompt: str
    sample: int
    particle: int = 0

    def normal(self, purpose: str, step: int, round: int, shape: tuple[int, ...]) -> Tensor:
        """See :class:`Noise`."""
        return torch.randn(shape, generator=self._generator(purpose, step, round))

    def uniform(self, purpose: str, step: int, round: int, shape: tuple[int, ...]) -> Tensor:
        """See :class:`Noise`."""
        return torch.rand(shape, generator=self._generator(purpose, step, round), dtype=torch.float64)

    def _generator(self, purpose: str, step: int, round: int) -> torch.Generator:
        parts = (self.seed, self.sample, self.particle, purpose, step, round, self.prompt)
        key = "\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass")
        return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(key).digest()[:8], "little"))
