"""From how many pictures on a training costs less than guidance: passes through the network, forward and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas

PASSES = ("network_forward", "network_backward")


@dataclass(frozen=True)
class BreakEven:
    """A trained arm in place of a guided one.

    Attributes:
        training: passes of the training.
        saved: passes that each picture of the trained arm costs less.
    """

    trained: str
    guided: str
    training: float
    saved: float

    @property
    def pictures(self) -> int:
        """From how many on training is cheaper."""
        return math.ceil(self.training / self.saved)


def passes_of(costs: pandas.DataFrame) -> dict[str, float]:
    """Mean passes of a picture by arm, of ``paired.costs``."""
    rows = costs[costs["cost"].isin(PASSES)]
    return {str(arm): float(total) for arm, total in rows.groupby("arm")["mean"].sum().items()}


def break_even(training: Mapping[str, float], costs: pandas.DataFrame) -> list[BreakEven]:
    """Every trained arm, with the passes of its training, in place of every untrained one whose pictures cost more."""
    passes = passes_of(costs)
    return [
        BreakEven(trained, guided, training[trained], passes[guided] - passes[trained])
        for trained in training
        for guided in passes
        if trained in passes and guided not in training and passes[guided] > passes[trained]
    ]
