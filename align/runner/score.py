"""Measuring finished 8-bit pictures: metric rewards and the exact checker.

A metric sees pictures in chunks of one fixed shape, padded by repeating the last, so that a value does not
depend on how many pictures are measured beside it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from align.config.schema import MetricsConfig
from align.runner import build

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from align.rewards.base import Reward

log = logging.getLogger(__name__)
CHUNK = 8
"""Rows of every call, whatever ``run.batch_size`` is: the same picture has the same value in every run."""


class Scorer:
    """The metrics of a run; a reward is loaded onto its device when the first picture comes.

    Args:
        metrics: which.
        device: where rewards run.
    """

    def __init__(self, metrics: MetricsConfig, device: torch.device) -> None:
        self.metrics = metrics
        self.device = device

    def check(self) -> None:
        """Find damaged weights before any work. Raises WeightsError."""
        for name in self.metrics.rewards:
            build.check_reward(name, self.device)

    def score(self, pictures: Sequence[Image], prompts: Sequence[str]) -> list[dict[str, Any]]:
        """The columns of each picture; an empty cell (None) where a value is not finite.

        ``notes`` among the columns is a list of what the row's status shall say.
        """
        rows: list[dict[str, Any]] = [{"notes": []} for _ in pictures]
        if not pictures:
            return rows
        for name in self.metrics.rewards:
            reward = build.load_reward(name, self.device)
            for start in range(0, len(pictures), CHUNK):
                part = slice(start, start + CHUNK)
                values = _values(reward, list(pictures[part]), list(prompts[part]))
                for row, value in zip(rows[part], values, strict=True):
                    row[name] = value
                    if value is None:
                        row["notes"].append(f"{name} is not finite")
        if self.metrics.checker:
            for row, picture, prompt in zip(rows, pictures, prompts, strict=True):
                row |= verdicts(picture, prompt)
        return rows


def _values(reward: Reward, pictures: list[Image], prompts: list[str]) -> list[float | None]:
    """At most ``CHUNK`` values; where the chunk fails each picture is tried alone, None if that fails."""
    pad = CHUNK - len(pictures)
    try:
        found = reward.score_images(pictures + pictures[-1:] * pad, prompts + prompts[-1:] * pad, CHUNK)
    except (ValueError, TypeError, UnicodeError, IndexError) as error:
        if len(set(prompts)) > 1:
            alone = [_values(reward, [one], [prompt]) for one, prompt in zip(pictures, prompts, strict=True)]
            return [values[0] for values in alone]
        log.warning("%s cannot score a prompt: %s", reward.name, error)
        return [None] * len(pictures)
    values = [float(value) for value in found[: len(pictures)]]
    return [value if math.isfinite(value) else None for value in values]


def verdicts(picture: Image, prompt: str) -> dict[str, bool | None]:
    """The checker's verdicts; empty cells for a prompt outside the grammar, or another size of picture."""
    import numpy as np

    from align.shapes.checker import check
    from align.shapes.grammar import parse

    names = ("all", "objects", "colours", "counts", "relations", "sizes", "background")
    caption = parse(prompt)
    if caption is None or picture.size != (64, 64):
        return {f"check_{name}": None for name in names}
    verdict = check(np.asarray(picture), caption)
    return {f"check_{name}": bool(getattr(verdict, name)) for name in names}
