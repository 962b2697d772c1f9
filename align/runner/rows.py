"""Rows of ``results.csv``, and the 8-bit pictures that are kept."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from align.config.schema import Config
from align.runner.plan import Item
from align.runner.spending import plan_told
from align.store.columns import DRAWN, INFO, TAG

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from align.sampling.sampler import Outcome


def to_image(picture: Tensor) -> Image:
    """(3, H, W) in [0, 1] as an 8-bit picture, rounded to the nearest."""
    import torch
    from PIL import Image

    levels = (picture.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).contiguous().cpu().numpy())


def optimised(config: Config) -> list[str]:
    """Names of what guides or selects, of the black box that a surrogate among them stands for, and of what the model was trained for."""
    here = (
        {*config.followed, *([config.blackbox] if config.blackbox else [])}
        if config.method.uses_reward
        else ()
    )
    return sorted({*here, *config.backbone.trained_for})


def make_row(config: Config, item: Item, outcome: Outcome, memory_mb: float | None) -> dict[str, Any]:
    """The row of an item, before its picture is measured; memory is the peak of the device so far."""
    info = {
        name if name in INFO or name in DRAWN or name.startswith("info_") else f"info_{name}": value
        for name, value in outcome.info.items()
    }
    status = "ok"
    if outcome.error is not None:
        status = f"failed: {' '.join(outcome.error.split())[:300]}"
    return {
        "prompt": item.prompt,
        **({"negative": item.negative} if item.negative != config.negative else {}),
        **{f"{TAG}{name}": text for name, text in item.tags.items()},
        "method": config.method.name,
        "backbone": config.backbone.name,
        "reward": config.reward_label,
        "optimised": optimised(config),
        "status": status,
        **asdict(outcome.cost),
        "seconds": outcome.seconds,
        "peak_memory_mb": memory_mb,
        **info,
        **({"info_budget": f"{plan_told(config)} for {config.budget.label}"} if config.budget.asked else {}),
    }
