"""Rewards that look at finished 8-bit pictures one by one: detectors and recognisers of text, without a gradient."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from align.pictures import to_rgb
from align.rewards.base import Reward, check_pairing
from align.rewards.preprocess import to_images

if TYPE_CHECKING:
    from PIL.Image import Image


class OneByOne(Reward):
    """A reward by ``judge``, which is asked once for a picture and its prompt however often both are in a call."""

    differentiable = False

    @abstractmethod
    def judge(self, image: Image, prompt: str) -> float:
        """The value of an RGB picture."""

    @torch.no_grad()
    def score(self, pictures: Tensor, prompts: Sequence[str], step: Tensor | None = None) -> Tensor:
        check_pairing(pictures, prompts, step)
        return self.score_images(to_images(pictures), prompts).to(pictures.device)

    @torch.no_grad()
    def score_images(self, images: Sequence[Image], prompts: Sequence[str], batch: int = 8) -> Tensor:
        if len(images) != len(prompts):
            raise ValueError(f"{len(images)} pictures for {len(prompts)} prompts")
        pairs = [(id(image), prompt) for image, prompt in zip(images, prompts, strict=True)]
        values: dict[tuple[int, str], float] = {}
        for pair, image in zip(pairs, images, strict=True):
            if pair not in values:
                values[pair] = self.judge(to_rgb(image), pair[1])
        return torch.tensor([values[pair] for pair in pairs], dtype=torch.float32)
