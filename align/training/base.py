"""What the training loop knows: who is trained, what a round teaches, who examines the result.

A training is rounds.  In each, the lesson collects examples (with the present weights, where it learns from its own pictures), and
the loop takes them in a keyed order, mini-batch by mini-batch.  Whatever is drawn is keyed by what it is for, so a round is a
pure function of its number and of the weights, and a killed training goes on from its last checkpoint as if nothing had been.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from torch import Tensor, nn

from align.training.ranks import Ranks


@dataclass(frozen=True)
class Example:
    """One thing that the loss is a mean over; lessons add what theirs holds, tensors on the CPU.

    Attributes:
        key: which one it is; different for each example of a round, as the order of learning follows from it.
        weight: how much it counts in the mean.
    """

    key: str
    weight: float = field(default=1.0, kw_only=True)


E = TypeVar("E", bound=Example)


class Lesson(Protocol[E]):
    """What is learned: SPO, its preference model, Diffusion-DPO..."""

    def collect(self, round_: int, ranks: Ranks) -> Sequence[E]:
        """What this process's share (``ranks.share``) of a round consists of; the loop gathers those of all.

        Of the round's number, the seed and the present weights alone; without gradients.
        """

    def loss(self, examples: Sequence[E]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Mean over some examples by their weights, with its gradient, and figures for the log: likewise means, scalars."""


class Trainable(Protocol):
    """Whose weights the loop changes."""

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """By name, those that are trained; the same objects each time, float32."""

    def save(self, folder: Path) -> None:
        """Write the present weights as whoever uses them reads them, each file as a whole."""


class Examiner(Protocol):
    """A judge that is not the one that is followed, on a fixed set of held-out prompts with keyed noise."""

    @property
    def names(self) -> Sequence[str]:
        """Of its figures; the first decides which weights are best, larger is better."""

    def __call__(self, ranks: Ranks) -> list[tuple[float, ...]]:
        """Figures of each of this process's share of the pictures, made with the present weights."""
