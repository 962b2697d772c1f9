"""A saved surrogate as a reward: it guides and selects like any other, and gradients pass through the features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from align.checkpoints.hashes import file_hash
from align.rewards.base import Reward, check_pairing
from align.rewards.clip import ContrastiveReward
from align.rewards.features import features_reward
from align.rewards.registry import spec
from align.surrogates.surrogate import Surrogate, read_surrogate


def as_they_are(pictures: Tensor) -> Tensor:
    """Pictures in [0, 1], in which all that is asked about is too."""
    return pictures


@dataclass(eq=False)
class SurrogateReward(Reward):
    """What a surrogate says of the features of an image tower; ``shown`` is what the tower sees of pictures in [0, 1]."""

    name: str
    surrogate: Surrogate
    tower: ContrastiveReward
    fingerprint: dict[str, str]
    shown: Callable[[Tensor], Tensor] = field(default=as_they_are)
    padded = True

    def score(self, pictures: Tensor, prompts: Sequence[str], step: Tensor | None = None) -> Tensor:
        check_pairing(pictures, prompts, step)
        return self.surrogate(self.tower.image_embeddings(self.shown(pictures)), prompts)


def load_surrogate(
    name: str, paths: Sequence[Path], device: torch.device | str, dtype: torch.dtype
) -> SurrogateReward:
    """From the paths of its file and of what its image tower needs, see ``RewardSpec.loader``."""
    surrogate = read_surrogate(paths[0])
    tower = _tower(features_reward(surrogate.features), tuple(paths[1:]), torch.device(device), dtype)
    return SurrogateReward(name, surrogate, tower, {paths[0].name: file_hash(paths[0])})


@lru_cache(maxsize=1)
def _tower(name: str, paths: tuple[Path, ...], device: torch.device, dtype: torch.dtype) -> ContrastiveReward:
    """The tower that the surrogates of all rounds share."""
    return cast(ContrastiveReward, spec(name).loader(name, paths, device, dtype))
