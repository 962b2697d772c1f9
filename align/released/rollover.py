"""Rollover budget forcing as RBF's program (arXiv 2503.19385) spends its budget."""

from __future__ import annotations

import torch
from torch import Tensor

from align.sampling.rollover import Rollover


class AnyLevel(Rollover):
    """A candidate has to beat the best so far at any level, that of the first states too; the last evaluation is not made."""

    def tries(self) -> int:
        return self.budget - self.first - 1

    def share(self, levels: int) -> int:
        return (self.budget - self.first) // levels

    def bar(self, bar: Tensor, value: Tensor, gone: Tensor, top: Tensor) -> Tensor:
        return torch.maximum(bar, value)
