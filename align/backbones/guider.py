"""How the network's outputs at one step become one: classifier-free guidance, and what has been published in its place.

A backbone asks a ``Guider`` which passes a step needs and hands it their raw outputs (noise, velocity, whatever the network
predicts); everything after that is the same for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from align.processes.base import Step

Combine = Callable[[Step, Tensor, Tensor | None, Tensor | None], Tensor]
"""One output (P, ...) of the prompt's own, the negative's and the weaker network's; the last two where they went through."""


@dataclass(frozen=True)
class Weak:
    """A weaker version of a network, from which guidance leads away.

    Attributes:
        kind: what happens to some of its blocks: they are left out (``skip``), their self-attention looks at nothing but its
            own place (``identity``), or looks from every place as from the mean of all (``mean``).
        stack: where the blocks are, as the network's modules are named; ``None`` for the usual place.
        layers: which blocks of the stack, counted from 0; ``None`` for the usual ones.
    """

    kind: Literal["skip", "identity", "mean"]
    stack: str | None = None
    layers: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Guider:
    """Classifier-free guidance, or what ``combine`` does with the same outputs.

    Attributes:
        scale: how many times the prompt's half counts; at 1 there is no pair.
        rescale: phi of section 3.4 of arXiv 2305.08891, 0 to 1: how far each picture's deviation is brought back to that of the
            prompt's half, against over-exposure at large scales.
        embedded: the scale that is fed to a network which was distilled from guided predictions.
        steps: at which steps the pair is combined, at all of them if ``None``; elsewhere the prompt's half is the output.
        zero_steps: at the first so many steps the output is 0.
        weak, weak_steps: what the further pass goes through, and at which steps.
        combine: ``None`` for other + scale (own - other).
        cached: steps at which a cache of the network's answers, and no block of it is evaluated.
    """

    scale: float = 1.0
    rescale: float = 0.0
    embedded: float = 1.0
    steps: range | None = None
    zero_steps: int = 0
    weak: Weak | None = None
    weak_steps: range = range(0)
    combine: Combine | None = None
    cached: frozenset[int] = frozenset()

    def pairs(self, step: Step) -> bool:
        """Whether a step's output needs the negative half."""
        return self.scale != 1 and self._within(step)

    def weakens(self, step: Step) -> Weak | None:
        """What else the prompt's half goes through."""
        return self.weak if step.index in self.weak_steps else None

    def calls(self, step: Step, both: bool = False) -> float:
        """Network evaluations of a step: both halves of a pair are one, and the prompt's half where others are pairs is half of one.

        ``both``: the negative half goes through the network whether the output needs it or not.
        """
        if step.index in self.cached:
            return 0.0
        alone = self.scale != 1 and not (both or self._within(step))
        return (0.5 if alone else 1) + (self.weakens(step) is not None)

    def _within(self, step: Step) -> bool:
        return self.steps is None or step.index in self.steps

    def __call__(self, step: Step, own: Tensor, other: Tensor | None, weak: Tensor | None = None) -> Tensor:
        """The guided output (P, ...); ``other`` may be there for its correction or its maps alone."""
        if step.index < self.zero_steps:
            return torch.zeros_like(own)
        if not self._within(step):
            other = None
        if other is None and weak is None:
            return own
        if self.combine is not None:
            output = self.combine(step, own, other, weak)
        else:
            assert other is not None
            output = other + self.scale * (own - other)
        if self.rescale == 0:
            return output
        wanted, there = (x.std(dim=tuple(range(1, x.ndim)), keepdim=True) for x in (own, output))
        return (1 - self.rescale + self.rescale * wanted / there) * output
