"""What rides along with the particles.

Everything that belongs to a particle is re-indexed together by ``take``, so a selection can never leave a
gradient or a previous prediction with the wrong particle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import torch
from torch import Tensor

Rows = TypeVar("Rows", "State", "Estimate")


def _take(rows: Rows, index: Tensor) -> Rows:
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
    """What the next step needs; P particles, those of one picture side by side.

    Attributes:
        z: latents (P, C, h, w).
        picture: (P,) int64, non-decreasing: which picture of the batch a particle belongs to.
        log_weights: (P,) float32, importance weights in log space.
        previous_x0: (P, C, h, w) prediction of the last evaluation, NaN before the first.
    """

    z: Tensor
    picture: Tensor
    log_weights: Tensor
    previous_x0: Tensor

    def take(self, index: Tensor) -> State:
        """Particles by index, everything of theirs with them."""
        return _take(self, index)

    @staticmethod
    def join(parts: Sequence[State]) -> State:
        """Particles of several states as one, pictures in order."""
        whole = _join(parts)
        return whole.take(torch.argsort(whole.picture, stable=True))

    def slots(self) -> Tensor:
        """(P,) number of each particle within its picture, from 0."""
        first = torch.searchsorted(self.picture, self.picture)
        return torch.arange(len(self.picture), device=self.picture.device) - first


@dataclass(frozen=True)
class Estimate:
    """One evaluation of P particles.

    Attributes:
        eps, x0, correction: as in :class:`align.backbones.base.Prediction`, (P, C, h, w).
        gradient: of the objective's *loss* with respect to z, (P, C, h, w); zero where a particle is not guided.
        gradient_norm: (P,) float32 Euclidean norm of it (with clean guidance alone, of the gradient with respect to x0).
        clean_shift: (P, C, h, w), how far clean guidance moves x0; zero without.
        value: (P,) float32, what selection ranks (larger is better); NaN where it was not computed.
        finite: (P,) bool, false where the loss or its gradient was not finite (the gradient is zero then).
    """

    eps: Tensor
    x0: Tensor
    correction: Tensor
    gradient: Tensor
    gradient_norm: Tensor
    clean_shift: Tensor
    value: Tensor
    finite: Tensor

    def take(self, index: Tensor) -> Estimate:
        """Particles by index, everything of theirs with them."""
        return _take(self, index)

    @staticmethod
    def join(parts: Sequence[Estimate]) -> Estimate:
        """Several estimates one after the other."""
        return _join(parts)
