"""Several rewards as one: a weighted sum, or a choice by ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from align.rewards.base import Reward, check_pairing


class WeightedSum(Reward):
    """``sum_i weight_i * reward_i``.

    Differentiable if all parts are; takes timesteps if any part does.  A part that is not finite makes the
    sum not finite; nothing is turned into zero.  Its name is by default the parts' names with their weights.
    """

    def __init__(self, parts: Sequence[tuple[float, Reward]], name: str | None = None):
        if not parts:
            raise ValueError("a weighted sum needs at least one reward")
        self.parts = list(parts)
        self.name = name or "+".join(f"{weight:g}*{reward.name}" for weight, reward in parts)
        self.differentiable = all(reward.differentiable for _, reward in parts)
        self.takes_timestep = any(reward.takes_timestep for _, reward in parts)
        self.foreign = any(reward.foreign for _, reward in parts)
        self.fingerprint = {
            f"{reward.name}.{key}": value for _, reward in parts for key, value in reward.fingerprint.items()
        } | {f"{reward.name}.weight": f"{weight:g}" for weight, reward in parts}

    def know(self, metadata: Mapping[str, Mapping[str, Any]]) -> None:
        for _, reward in self.parts:
            reward.know(metadata)

    def score(self, pictures: Tensor, prompts: Sequence[str], step: Tensor | None = None) -> Tensor:
        check_pairing(pictures, prompts, step)
        return self.combined(
            [
                reward.score(pictures, prompts, step if reward.takes_timestep else None)
                for _, reward in self.parts
            ]
        )

    def score_rows(self, pictures: Tensor, prompts: Sequence[str], step: Tensor | None, real: int) -> Tensor:
        return self.combined(
            [
                reward.score_rows(pictures, prompts, step if reward.takes_timestep else None, real)
                for _, reward in self.parts
            ]
        )

    def combined(self, values: Sequence[Tensor]) -> Tensor:
        """What the parts' values of P pictures, (P,) each, come to."""
        return sum(weight * value for (weight, _), value in zip(self.parts, values, strict=True))  # type: ignore[return-value]


class RankSum(WeightedSum):
    """Chooses by ``sum_i weight_i * rank_i``, for which no scale has to be known; there is no value of one picture alone.

    A score is a row of all parts' values, (P, K), and ``among`` makes of the rows of a choice what each is worth there.
    """

    def __init__(self, parts: Sequence[tuple[float, Reward]], name: str | None = None):
        super().__init__(parts, name)
        self.name = name or f"ranks of {self.name}"
        self.differentiable = False
        self.fingerprint["combine"] = "ranks"

    def combined(self, values: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(values), dim=1)

    def among(self, values: Tensor) -> Tensor:
        """(n,) of values (n, K); NaN where one of them is not finite, which takes no part in the ranks of the others."""
        sound = torch.isfinite(values).all(dim=1)
        worth = torch.full((len(values),), torch.nan)
        weights = torch.tensor([weight for weight, _ in self.parts], dtype=torch.float64)
        worth[sound] = (ranks(values[sound]) @ weights).float()
        return worth


def ranks(values: Tensor) -> Tensor:
    """(n, K) float64 ranks from 1 of finite values (n, K), by column; the largest has the highest, equals their mean."""
    below = (values[None] < values[:, None]).sum(dim=1)
    equal = (values[None] == values[:, None]).sum(dim=1)
    return below.double() + (equal.double() + 1) / 2
