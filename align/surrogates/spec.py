"""Saved surrogates among the registered rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from align.rewards.errors import RewardError
from align.rewards.features import features_reward
from align.rewards.registry import REWARDS, spec
from align.rewards.sources import Checkpoint
from align.rewards.spec import RewardSpec

if TYPE_CHECKING:
    import torch

    from align.rewards.base import Reward


def register(files: Mapping[str, str]) -> None:
    """Make surrogates rewards, by name of each file. Raises WrongWeights: one is no surrogate; RewardError: its name or features."""
    for name, file in files.items():
        path = Path(file).expanduser()
        own = Checkpoint(str(path.parent.resolve()), (path.name,))
        known = REWARDS.get(name)
        if known is not None and known.weights[:1] == (own,):
            continue
        if known is not None and known.loader is not _load:
            raise RewardError(f"there is a reward {name} already: give {path.name} another name")
        from align.surrogates.surrogate import told_by

        tower = spec(features_reward(told_by(path)["features"]))
        REWARDS[name] = RewardSpec(f"surrogate {path.name}", _load, (own, *tower.weights))


def _load(name: str, paths: Sequence[Path], device: torch.device | str, dtype: torch.dtype) -> Reward:
    from align.surrogates.reward import load_surrogate

    return load_surrogate(name, paths, device, dtype)
