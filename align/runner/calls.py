"""How many rows a call of the network has at most, where ``run.batch_size`` leaves it to us.

By what the run is and where, never by how long anything takes or what is left to do: the last bits of a picture depend on
it (see ``align.sampling.batching``).  A resumed, shared or sharded run has the plan of the whole, and so the same number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from align.config.schema import Config
from align.runner.devices import gb_of, torch_device
from align.runner.files import Files
from align.runner.memory import predicted
from align.runner.plan import Item, group_of

if TYPE_CHECKING:
    from align.sampling.batching import Calls
    from align.sampling.sampler import Request

MOST = 8
"""Rows beyond which a call of the small models takes no less time for each."""
GIB = 2**30 / 1e9
GIB_OF_A_ROW = {"sdxl": (5.0, 32.0), "sd15": (2.0, 10.0), "lcm": (2.0, 10.0)}
"""Memory of a row without and with a gradient through network, decoder and reward, by family."""
GIB_OF_WEIGHTS = 8.0
GB_BESIDE = 4.0
"""Rewards and workspace beside a flow transformer, of which all else is calculated."""


def calls_of(config: Config, items: Sequence[Item | Request], files: Files | None = None) -> Calls:
    """The calls of a run by its whole plan; ``run.batch_size`` makes them independent of how much that is."""
    from align.sampling.batching import Calls

    if config.run.batch_size is not None:
        return Calls(config.run.batch_size)
    groups = {group_of(item, config.method.returned) for item in items}
    return Calls(_most(config, files), max(1, len(groups)))


def _most(config: Config, files: Files | None) -> int:
    """Rows beyond which nothing gets faster, or memory runs out."""
    if config.backbone.family in ("shapes", "shapes_flow", "toy"):
        return MOST
    device = torch_device(config.run.device)
    if device.type != "cuda":
        return 1  # rows beside each other gain nothing on a CPU, and memory may be little
    if config.backbone.kind == "transformer":
        found = predicted(files or Files(config))
        room = (gb_of(device) - GB_BESIDE - found.weights) / found.row
    else:
        plain, guided = GIB_OF_A_ROW[config.backbone.family]
        room = (gb_of(device) / GIB - GIB_OF_WEIGHTS) / (guided if config.method.differentiates else plain)
    return int(2 ** int(math.log2(min(max(room, 1), MOST))))
