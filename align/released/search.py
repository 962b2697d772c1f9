"""DSearch-R as it was released."""

from __future__ import annotations

from torch import Tensor

from align.sampling.search import Prune


class RawPrune(Prune):
    """Copies are drawn by values in raw reward units (quirk ``raw_values``).

    So one temperature takes nearly the best of some rewards and nearly any of others.
    """

    def scaled(self, value: Tensor, known: Tensor) -> Tensor:
        return value
