"""What was asked, and in what its features and values are counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Asked:
    """What a black box was asked about: features (n, d), values (n,) and the pictures' n prompts."""

    features: Tensor
    values: Tensor
    prompts: tuple[str, ...]

    def finite(self) -> Asked:
        """Without what was not answered by a number."""
        return self.take(self.values.isfinite().nonzero()[:, 0])

    def take(self, rows: Tensor) -> Asked:
        prompts = tuple(self.prompts[row] for row in rows.tolist())
        return Asked(self.features[rows], self.values[rows], prompts)

    def and_then(self, more: Asked) -> Asked:
        if not len(more.values):
            return self
        return Asked(
            torch.cat([self.features, more.features]),
            torch.cat([self.values, more.values]),
            (*self.prompts, *more.prompts),
        )


@dataclass(frozen=True)
class Frame:
    """Where features and values begin, and the unit of values: differences between prompts are not what guides a picture.

    Attributes:
        centre: (d,), where features of a prompt that was not asked about begin.
        centres: (prompts, d), where those of the ``prompts`` do.
        scale: the unit of values.
    """

    centre: Tensor
    centres: Tensor
    prompts: tuple[str, ...]
    scale: float

    def __call__(self, features: Tensor, prompts: Sequence[str]) -> Tensor:
        """(P, d) features (P, d) of pictures of P prompts as the surrogate reads them."""
        if not self.prompts:
            return features - self.centre.to(features.device)
        places = {prompt: place for place, prompt in enumerate(self.prompts)}
        rows = [places.get(prompt, len(self.prompts)) for prompt in prompts]
        return features - torch.cat([self.centres, self.centre[None]])[rows].to(features.device)


def framed(asked: Asked, centre: str, scale: str) -> tuple[Frame, Tensor, Tensor]:
    """The frame of what was asked, and features (n, d) and values (n,) of what tells something in it.

    ``centre`` and ``scale`` as in ``align.config.online.SurrogateConfig``.
    """
    times = Counter(asked.prompts)
    by_prompt = centre == "prompt" and any(number > 1 for number in times.values())
    told = [row for row, prompt in enumerate(asked.prompts) if not by_prompt or times[prompt] > 1]
    rows = asked.take(torch.tensor(told))
    middle, level = asked.features.mean(0), rows.values.mean()
    if centre == "none":
        middle, level = torch.zeros_like(middle), torch.zeros(())
    features, values, prompts = rows.features - middle, rows.values - level, tuple[str, ...]()
    centres = features.new_empty(0, len(middle))
    if by_prompt:
        prompts = tuple(dict.fromkeys(rows.prompts))
        places = torch.tensor([prompts.index(prompt) for prompt in rows.prompts])
        each = torch.bincount(places)[:, None]
        centres = torch.zeros(len(prompts), len(middle)).index_add(0, places, rows.features) / each
        levels = torch.zeros(len(prompts)).index_add(0, places, rows.values) / each[:, 0]
        features, values = rows.features - centres[places], rows.values - levels[places]
    free = len(values) - (len(prompts) or (centre != "none"))
    deviation = float((values.square().sum() / max(free, 1)).sqrt()) if scale == "deviation" else 1.0
    unit = deviation if deviation > 0 else 1.0
    return Frame(middle, centres, prompts, unit), features, values / unit
