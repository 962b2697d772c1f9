"""What is known about a reward before it is loaded.  Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from align.rewards.sources import Checkpoint

if TYPE_CHECKING:
    import torch

    from align.rewards.base import Reward

Loader = Callable[[str, Sequence[Path], "torch.device | str", "torch.dtype"], "Reward"]


@dataclass(frozen=True)
class RewardSpec:
    """A reward in the registry.

    Attributes:
        summary: one line for ``--help``.
        loader: called as ``loader(name, paths, device, dtype)`` with the paths of all files of ``weights`` in order;
            imports what it needs.
        weights: the files that it reads; none if it is not a model.
        facts: what a run records of a published model: model, version, preprocessing, data type.
        differentiable: whether guidance can use it.
        takes_timestep: whether it judges one-step predictions by their timestep.
        reads_prompt: whether the prompt has a part in the value.
    """

    summary: str
    loader: Loader
    weights: tuple[Checkpoint, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    differentiable: bool = True
    takes_timestep: bool = False
    reads_prompt: bool = True

    @property
    def network(self) -> bool:
        """Whether it is a network of ours, which can compute in shorter numbers; a formula or a user's own code is not."""
        return bool(self.weights) and not any(
            name.endswith(".py") for one in self.weights for name in one.names
        )
