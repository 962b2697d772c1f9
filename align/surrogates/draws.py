"""The random numbers of one fit, keyed; recorded ones stand in for them in replays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from align.sampling.noise import Noise


@dataclass(frozen=True)
class Draws:
    """Draws of ``noise``, whose key tells one fit from another."""

    noise: Noise

    def start(self, widths: Sequence[int], heads: int) -> list[Tensor]:
        """Weights (heads, out, in) and biases (heads, 1, out) of each layer, spread as PyTorch spreads those of a linear one.

        They depend on the heads' number and the widths alone where ``noise`` is the same.
        """
        made = []
        for layer, (width, out) in enumerate(pairwise([*widths, 1])):
            for number, shape in enumerate(((heads, out, width), (heads, 1, out))):
                uniform = self.noise.uniform("start", layer, number, shape)
                made.append(((2 * uniform - 1) / width**0.5).float())
        return made

    def split(self, rows: int, share: float) -> tuple[Tensor, Tensor]:
        """Numbers of the rows that are learned from, and of those that are held out: at least one of each."""
        order = self._order("split", 0, rows)
        held_out = min(max(1, round(share * rows)), rows - 1)
        return order[held_out:].sort().values, order[:held_out].sort().values

    def order(self, epoch: int, rows: int) -> Tensor:
        """(rows,) places in the order in which an epoch takes them."""
        return self._order("order", epoch, rows)

    def resampled(self, heads: int, rows: int) -> Tensor:
        """(heads, rows) places, drawn with replacement, that each head learns from."""
        return (self.noise.uniform("resample", 0, 0, (heads, rows)) * rows).long()

    def gradient_noise(self, step: int, like: Sequence[Tensor]) -> list[Tensor]:
        """Standard normal numbers for the gradient of each parameter."""
        return [
            self.noise.normal("gradient", step, place, tuple(one.shape)) for place, one in enumerate(like)
        ]

    def _order(self, purpose: str, step: int, rows: int) -> Tensor:
        return self.noise.uniform(purpose, step, 0, (rows,)).argsort()
