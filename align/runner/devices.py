"""The device that ``run.device`` names.  Imports torch only when it is asked about one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from align.config.convert import shown
from align.config.errors import ConfigError

if TYPE_CHECKING:
    import torch


def torch_device(name: str) -> torch.device:
    """The device that ``run.device`` means: ``auto`` is CUDA where there is some, else the CPU."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def check_device(name: str) -> None:
    """Refuse a device that is not there; torch is imported only if one is named."""
    if name in ("auto", "cpu"):
        return
    import torch

    kind, _, number = name.partition(":")
    if kind == "mps":
        there = torch.backends.mps.is_available()
    else:
        there = torch.cuda.is_available() and int(number or 0) < torch.cuda.device_count()
    if not there:
        raise ConfigError(f"run.device={shown(name)} is not there: give run.device=cpu or auto")


def gb_of(device: torch.device) -> float:
    """Memory of a CUDA device, in GB of 10^9 bytes."""
    import torch

    return torch.cuda.get_device_properties(device).total_memory / 1e9
