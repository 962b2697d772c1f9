"""Rewards that are no network: a picture's size as JPEG (DDPO's toys, arXiv 2305.13301), a function of what it stands for."""

from __future__ import annotations

import io
from collections.abc import Sequence

import torch
from torch import Tensor

from align.rewards.base import Reward, check_pairing
from align.rewards.preprocess import to_images
from align.toy.picture import to_coordinates
from align.toy.problems import REWARDS

QUALITY = 95


class JpegReward(Reward):
    """``sign`` times the kilobytes (1000 bytes) of the 8-bit picture as JPEG of quality 95."""

    differentiable = False

    def __init__(self, name: str, sign: float):
        self.name, self.sign = name, sign
        self.fingerprint = {"architecture": f"Pillow JPEG, quality {QUALITY}"}

    def score(self, pictures: Tensor, prompts: Sequence[str], step: Tensor | None = None) -> Tensor:
        check_pairing(pictures, prompts, step)
        sizes = []
        for image in to_images(pictures):
            file = io.BytesIO()
            image.save(file, format="JPEG", quality=QUALITY)
            sizes.append(file.tell() / 1000)
        return self.sign * torch.tensor(sizes, dtype=torch.float32, device=pictures.device)


class ToyReward(Reward):
    """A function of a few coordinates, by its name in ``REWARDS``; prompts are not read."""

    padded = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.of_coordinates = REWARDS[name]
        self.fingerprint = {"architecture": f"{self.of_coordinates} of the mean colour"}

    def score(self, pictures: Tensor, prompts: Sequence[str], step: Tensor | None = None) -> Tensor:
        check_pairing(pictures, prompts, step)
        return self.of_coordinates(to_coordinates(pictures, self.of_coordinates.dimension)).float()
