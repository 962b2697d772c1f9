"""Rewards that a user's own Python file adds to the registry.  Imports no torch.

A file holds functions under ``reward``; ``run.plugins=[FILE.py]`` on the command line reads it.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from align.rewards.errors import RewardError
from align.rewards.registry import REWARDS
from align.rewards.sources import Checkpoint
from align.rewards.spec import RewardSpec
from align.store.columns import is_metric
from align.store.measured import CHECKER

if TYPE_CHECKING:
    import torch

    from align.rewards.base import Reward

Judge = TypeVar("Judge", bound=Callable[..., Any])


def reward(*, differentiable: bool) -> Callable[[Judge], Judge]:
    """Make a function a reward under its own name.

    The function is called as ``function(pictures, prompts)`` with pictures (P, 3, H, W), float in [0, 1], on the run's
    device, and P prompts; it returns P numbers, each of which depends on its own picture and prompt alone.  The whole
    file that it stands in is part of the identity of pictures that the reward decides about: another text of the file,
    other pictures. ``differentiable`` says whether gradients reach the pictures, as methods that guide need.

    Raises RewardError: another file has a reward of this name, or ``results.csv`` has another use for such a column.
    """

    def add(function: Judge) -> Judge:
        file, name = Path(function.__code__.co_filename), function.__name__
        weights = (Checkpoint(str(file.parent), (file.name,)),)
        if not is_metric(name) or name == CHECKER:
            raise RewardError(
                f"the column {name} of results.csv is no reward's: give the function another name"
            )
        if name in REWARDS and REWARDS[name].weights != weights:
            raise RewardError(f"there is a reward {name} already: give the function another name")

        def load(name: str, paths: Sequence[Path], device: torch.device | str, dtype: torch.dtype) -> Reward:
            from align.checkpoints.hashes import file_hash
            from align.rewards.function import FunctionReward

            return FunctionReward(name, function, differentiable, {file.name: file_hash(file)})

        summary = (function.__doc__ or name).strip().splitlines()[0]
        REWARDS[name] = RewardSpec(summary, load, weights, differentiable=differentiable)
        return function

    return add


def read_plugin(path: Path) -> list[str]:
    """Run a Python file once in this process; the names of the rewards that it adds. Raises what the file does, and OSError."""
    path = path.resolve()
    name = f"align_plugin_{path.stem}"
    known = sys.modules.get(name)
    if known is None or known.__file__ != str(path):
        spec = importlib.util.spec_from_loader(name, importlib.machinery.SourceFileLoader(name, str(path)))
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    own = Checkpoint(str(path.parent), (path.name,))
    return [one for one, spec in REWARDS.items() if spec.weights == (own,)]
