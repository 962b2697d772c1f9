"""Processes that train together, as ``torchrun`` starts them: each takes a share, sums are the same in all.

Examples and figures travel whole, so that their order does not depend on who made them; gradients are summed in one message.
Two processes differ from one in the order of float32 sums alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """One of ``number`` processes."""

    rank: int = 0
    number: int = 1

    @staticmethod
    def here(device: torch.device) -> Ranks:
        """Those that ``torchrun`` or ``accelerate launch`` started, joined; else this process alone."""
        number = int(os.environ.get("WORLD_SIZE", "1"))
        if number == 1:
            return Ranks()
        if not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        return Ranks(dist.get_rank(), number)

    @property
    def first(self) -> bool:
        """Whether this one writes and speaks."""
        return self.rank == 0

    def share(self, whole: Sequence[T]) -> Sequence[T]:
        """The own part of a sequence, which the parts make up one after the other; they differ by one at most."""
        begin, end = (len(whole) * part // self.number for part in (self.rank, self.rank + 1))
        return whole[begin:end]

    def gather(self, own: Sequence[T]) -> list[T]:
        """The parts of all, one after the other."""
        if self.number == 1:
            return list(own)
        parts: list[Any] = [None] * self.number
        dist.all_gather_object(parts, list(own))
        return [one for part in parts for one in part]

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over processes, in one message."""
        if self.number == 1:
            return
        flat = torch.cat([one.flatten() for one in tensors])
        dist.all_reduce(flat)
        for one, part in zip(tensors, torch.split(flat, [one.numel() for one in tensors]), strict=True):
            one.copy_(part.view_as(one))

    def told(self, what: T) -> T:
        """What the first process has."""
        if self.number == 1:
            return what
        box: list[Any] = [what]
        dist.broadcast_object_list(box, 0)
        found: T = box[0]
        return found

    def leave(self) -> None:
        """Part from the others."""
        if self.number > 1 and dist.is_initialized():
            dist.destroy_process_group()
