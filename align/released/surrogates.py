"""The surrogates of SEIKO, also of its version in DAS, as they were fitted and asked when released."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from align.surrogates.draws import Draws
from align.surrogates.networks import Fit, Layers, last

DROPOUT = (0.2, 0.2, 0.1)
"""Behind the first layers."""


class ReleasedDraws(Draws):
    """Draws that the right fit does not need."""

    def kept(self, step: int, place: int, shape: tuple[int, ...], share: float) -> Tensor:
        """Which units (H, n, width) dropout keeps behind layer ``place``."""
        return self.noise.uniform("dropout", step, place, shape) >= share

    def judged(self, heads: int, rows: int) -> Tensor:
        return (self.noise.uniform("judge", 0, 0, (heads, rows)) * rows).long()


@dataclass(frozen=True)
class ReleasedFit(Fit):
    """The newest tenth is held out; dropout in the first epoch alone; the last epoch's weights count.

    Several networks are judged by resampled rows.  Its ``draws`` are ``ReleasedDraws``.
    """

    def split(self, draws: Draws, rows: int) -> tuple[Tensor, Tensor]:
        first = int((1 - self.held_out) * rows)
        return torch.arange(first), torch.arange(first, rows)

    def judged(self, draws: Draws, heads: int, rows: int) -> Tensor:
        assert isinstance(draws, ReleasedDraws)
        return draws.judged(heads, rows) if heads > 1 else super().judged(draws, heads, rows)

    def better(self, errors: Sequence[float]) -> bool:
        return True

    def training_values(
        self, layers: Layers, features: Tensor, epoch: int, step: int, draws: Draws
    ) -> Tensor:
        if epoch > 0:
            return super().training_values(layers, features, epoch, step, draws)
        assert isinstance(draws, ReleasedDraws)
        found = features
        for place, (weight, bias) in enumerate(zip(layers[:-2:2], layers[1:-2:2], strict=True)):
            found = torch.baddbmm(bias, found, weight.transpose(1, 2))
            if place < len(DROPOUT):
                share = DROPOUT[place]
                found = found * draws.kept(step, place, tuple(found.shape), share) / (1 - share)
        return last(layers, found)


def washed_out(pictures: Tensor) -> Tensor:
    """Pictures in [0, 1] as the released guidance shows them to a surrogate: taken for [-1, 1] and scaled again."""
    return pictures / 2 + 0.5
