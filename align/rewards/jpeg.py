"""Size of a picture as JPEG, the toy rewards of DDPO (arXiv 2305.13301).  Not differentiable."""

from __future__ import annotations

import io
from collections.abc import Sequence

import torch
from torch import Tensor

from align.rewards.base import Reward, check_pairing
from align.rewards.preprocess import to_images

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
