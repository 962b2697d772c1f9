"""How many rows a call of the network has at most, where ``run.batch_size`` leaves it to us.

By what the run is and where, never by how long anything takes or what is left to do: the last bits of a picture depend on
it (see ``align.sampling.batching``).  A resumed, shared or sharded run has the plan of the whole, and so the same number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from align.config.schema import Config
from align.runner.devices import torch_device
from align.runner.plan import Item, group_of

if TYPE_CHECKING:
    import torch

    from align.runner.files import Files
    from align.sampling.sampler import Request

MOST = 8
"""Rows beyond which a call of the small models takes no less time for each."""
GIB_OF_A_ROW = {"sdxl": (5.0, 32.0), "sd15": (2.0, 10.0), "lcm": (2.0, 10.0)}
"""Memory of a row without and with a gradient through network, decoder and reward, by family."""
GIB_OF_WEIGHTS = 8.0
GB_BESIDE = 4.0
"""Rewards and workspace beside a flow transformer, of which all else is calculated."""


def with_batch_size(
    config: Config, items: Sequence[Item | Request] | None = None, files: Files | None = None
) -> Config:
    """The configuration with a number of rows for its calls; ``items`` is its whole plan, if there is one."""
    if config.run.batch_size is not None:
        return config
    rows = _most(config, files)
    if items is not None:
        method = config.method
        groups = {group_of(item, method.returned) for item in items}
        candidates = method.search.candidates * max(1.0, method.search.widen)
        rows = fitting(rows, max(1, len(groups)), max(1, int(method.particles * candidates)))
    return replace(config, run=replace(config.run, batch_size=rows))


def fitting(most: int, groups: int, rows: int) -> int:
    """Rows of a call, at most ``most``, for so many groups of particles that bring so many rows to a pass each.

    A plan of a few calls is cut evenly instead of padded.
    """
    if rows >= most or groups * rows > 4 * most:
        return most
    return math.ceil(groups * rows / math.ceil(groups * rows / most))


def _most(config: Config, files: Files | None) -> int:
    """Rows beyond which nothing gets faster, or memory runs out."""
    if config.backbone.family in ("shapes", "shapes_flow", "toy"):
        return MOST
    device = torch_device(config.run.device)
    if device.type != "cuda":
        return 1  # rows beside each other gain nothing on a CPU, and memory may be little
    if config.backbone.kind == "transformer":
        from align.runner.files import Files
        from align.runner.memory import predicted

        found = predicted(files or Files(config))
        room = (gib_of(device) * 2**30 / 1e9 - GB_BESIDE - found.weights) / found.row
    else:
        plain, guided = GIB_OF_A_ROW[config.backbone.family]
        room = (gib_of(device) - GIB_OF_WEIGHTS) / (guided if config.method.guided else plain)
    return int(2 ** int(math.log2(min(max(room, 1), MOST))))


def gib_of(device: torch.device) -> float:
    """Memory of a CUDA device."""
    import torch

    return torch.cuda.get_device_properties(device).total_memory / 2**30
