"""Rewards of the toy problems: functions of the coordinates that a picture stands for."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from align.rewards.base import Reward, check_pairing
from align.toy.picture import to_coordinates
from align.toy.problems import REWARDS


class ToyReward(Reward):
    """A function of a few coordinates, by its name in ``REWARDS``; prompts are not read."""

    padded = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.of_coordinates = REWARDS[name]
        self.fingerprint = {"architecture": f"{self.of_coordinates} of the mean colour"}

    def score(self, pictures: Tensor, prompts: Sequence[str], step: Tensor | None = None) -> Tensor:
        check_pairing(pictures, prompts, step)
        return self.of_coordinates(to_coordinates(pictures, self.of_coordinates.dimension)).float()
