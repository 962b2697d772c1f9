"""What is known about a reward before it is loaded.  Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from align.rewards.sources import Checkpoint

if TYPE_CHECKING:
    import torch

    from align.rewards.base import Reward

Loader = Callable[..., "Reward"]
"""Called with the name, the paths of all files in order, device and data type."""
Lacks = Callable[[str, Mapping[str, str], Mapping[str, Any]], str | None]
"""Of a prompt, its tags and the reward's options: what is missing and the mend, or None."""


def network(
    module: str,
    arguments: Callable[[Sequence[Path]], dict[str, Any]] = lambda paths: dict(
        zip(("folder", "tokenizer_folder"), paths, strict=False)
    ),
    loads: str | None = None,
) -> Loader:
    """What loads a network by ``load_<module>`` or the function ``loads``, with the ``arguments`` that its paths make, by default one or two folders."""

    def load(
        name: str, paths: Sequence[Path], device: torch.device | str, dtype: torch.dtype, **options: Any
    ) -> Reward:
        name_of = loads or f"load_{module.rpartition('.')[2]}"
        function = getattr(import_module(f"align.rewards.{module}"), name_of)
        reward: Reward = function(name, **arguments(paths), device=device, dtype=dtype, **options)
        return reward

    return load


@dataclass(frozen=True)
class RewardSpec:
    """A reward in the registry; ``summary`` is one line for ``--help``."""

    summary: str
    loader: Loader
    """For the files of ``weights``; imports what it needs."""
    weights: tuple[Checkpoint, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    """What a run records of a published model: model, version, preprocessing, data type."""
    differentiable: bool = True
    takes_timestep: bool = False
    """Whether it judges one-step predictions by their timestep."""
    reads_prompt: bool = True
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Numbers that it computes in unless told otherwise, and as a metric always: a large judge's are its published ones."""
    section: str | None = None
    """The section of ``judges`` that holds its options, which its loader takes too."""
    reads_metadata: bool = False
    """Whether it looks at what is known of a prompt besides its words, see ``Reward.metadata``."""
    tells: tuple[str, ...] = ()
    """Tags that it reads of a prompt, which have one value wherever the prompt is listed."""
    answers: bool = False
    """Whether its value is the mean of several, which a row keeps, see ``Reward.answers``."""
    lacks: Lacks | None = None
    """What a prompt lacks that it reads."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """What else is imported, and for each the mend where it is not there."""

    def absent(self) -> str:
        """What of ``packages`` is not there, and the mend; empty if nothing."""
        gone = (
            f"needs {name}, which is not there: {mend}"
            for name, mend in self.packages.items()
            if find_spec(name) is None
        )
        return next(gone, "")

    @property
    def network(self) -> bool:
        """Whether it is a network of ours, which can compute in shorter numbers; a formula or a user's own code is not."""
        return (
            bool(self.weights)
            and self.section is None
            and not any(name.endswith(".py") for one in self.weights for name in one.names)
        )
