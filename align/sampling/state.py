"""What rides along with the particles.

Everything that belongs to a particle is re-indexed together by ``take``, so a selection can never leave a
gradient or a previous prediction with the wrong particle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import torch
from torch import Tensor

Rows = TypeVar("Rows", "State", "Estimate")


def _take(rows: Rows, index: Tensor) -> Rows:
    index = index.to(getattr(rows, fields(rows)[0].name).device)  # once, not again for every field
    values: dict[str, Any] = {f.name: getattr(rows, f.name)[index] for f in fields(rows)}
    return type(rows)(**values)


def _join(parts: Sequence[Rows]) -> Rows:
    first = parts[0]
    values: dict[str, Any] = {
        f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(first)
    }
    return type(first)(**values)


@dataclass(frozen=True)
class State:
    """What the next step needs; P particles, those of one group side by side.

    Attributes:
        z: latents (P, C, h, w).
        picture: (P,) int64: which of the batch's prompts a particle draws.
        group: (P,) int64, non-decreasing: particles are selected among those of their own group only; the same as
            ``picture`` but for replays of released code that lets prompts compete.
        log_weights: (P,) float64 importance weights in log space, not normalised: over a group their log-sum-exp is
            the running estimate of the log evidence.
        twist: (P,) float64, log of the potentials that the weights hold of a particle's ancestors.
        statistic: (P,) float64, what a particle filter remembers of a particle's ancestors beside that.
        tilt: (P,) float64, how strongly the next proposal follows the reward's gradient (lambda / alpha).
        previous_x0: (P, C, h, w) prediction of the last evaluation, NaN before the first.
    """

    z: Tensor
    picture: Tensor
    group: Tensor
    log_weights: Tensor
    twist: Tensor
    statistic: Tensor
    tilt: Tensor
    previous_x0: Tensor

    @staticmethod
    def of(z: Tensor, picture: Tensor) -> State:
        """Particles at the start: latents (P, C, h, w) of pictures (P,); each group's weights sum to one."""
        device = z.device
        # Not on Apple's devices, which have no float64.
        kind = torch.float32 if device.type == "mps" else torch.float64
        zero = torch.zeros(len(z), dtype=kind, device=device)
        return State(
            z=z,
            picture=picture,
            group=picture,
            log_weights=-torch.bincount(picture)[picture].to(kind).log(),
            twist=zero,
            statistic=zero,
            tilt=zero + 1,
            previous_x0=torch.full_like(z, torch.nan),
        )

    def take(self, index: Tensor) -> State:
        """Particles by index, everything of theirs with them."""
        return _take(self, index)

    @staticmethod
    def join(parts: Sequence[State]) -> State:
        """Particles of several states, one after the other."""
        return _join(parts)

    def slots(self) -> Tensor:
        """(P,) number of each particle within its group, from 0."""
        first = torch.searchsorted(self.group, self.group)
        return torch.arange(len(self.group), device=self.group.device) - first

    def groups(self) -> Iterator[Tensor]:
        """Rows (n,) of each group, in order."""
        for group in self.group.unique():
            yield torch.nonzero(self.group == group)[:, 0]


@dataclass(frozen=True)
class Estimate:
    """One evaluation of P particles.

    Attributes:
        eps, x0, correction: as in :class:`align.backbones.base.Prediction`, (P, C, h, w).
        gradient: of the objective's *loss* with respect to z, (P, C, h, w); zero where a particle is not guided.
        gradient_norm: (P,) float32 Euclidean norm of it (with clean guidance alone, of the gradient with respect to x0).
        clean_shift: (P, C, h, w), how far clean guidance moves x0; zero without.
        loss: (P,) float32, the objective; NaN where there is none.
        value: (P,) float32, the expected reward (larger is better); NaN where it was not asked for.
        finite: (P,) bool, false where the loss or its gradient was not finite (the gradient is zero then).
    """

    eps: Tensor
    x0: Tensor
    correction: Tensor
    gradient: Tensor
    gradient_norm: Tensor
    clean_shift: Tensor
    loss: Tensor
    value: Tensor
    finite: Tensor

    def take(self, index: Tensor) -> Estimate:
        """Particles by index, everything of theirs with them."""
        return _take(self, index)

    @staticmethod
    def join(parts: Sequence[Estimate]) -> Estimate:
        """Several estimates one after the other."""
        return _join(parts)
