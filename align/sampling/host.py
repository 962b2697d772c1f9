"""The way between host and device: all of a run's deliberate reads, so that they can be counted.

A read waits until the device has done all that it was given; everything else that would wait (``.item()``, ``nonzero``, a
boolean index of device tensors...) has no place in ``align.sampling``.  What only the host reads is kept on the host.
"""

from __future__ import annotations

import torch
from torch import Tensor


def read(tensor: Tensor) -> Tensor:
    """A tensor's numbers on the host, without a graph; waits for the device."""
    return tensor.detach().cpu()


def read_together(*columns: Tensor) -> tuple[Tensor, ...]:
    """Some (P,) tensors of numbers by one read, as float64."""
    kind = torch.float32 if columns[0].device.type == "mps" else torch.float64
    return tuple(read(torch.stack([column.to(kind) for column in columns])).double())


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A host tensor on the device, without waiting for it; one that is there already stays as it is."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
