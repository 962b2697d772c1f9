"""From pictures to what an image tower expects, differentiably, and from files to pictures exactly.

Ways to size a picture, because the published models differ:

* ``clip``: shortest side by antialiased bicubic, clamped, centre crop as torchvision has it (ImageReward, aesthetics, and
  GenEval's colours, whose programs use CLIP's or open_clip's own transform);
* ``hps``: longest side by antialiased bicubic, not clamped, black padding on all sides (HPSv2's own code
  with torchvision 0.17 or later);
* ``hps2023``: the same **without** antialiasing, as that code did with torchvision 0.15, when the published tables
  were made; pixels differ by about 5/255 on average;
* ``spo``: shortest side by bicubic **without** antialiasing, centre crop, then clamped (SPO's step-aware
  model, and what DyMO's guidance gradient flows through);
* ``clip_floor``: the same as transformers' processor has it: of an odd number of pixels that are cut off the smaller half is
  above and on the left, where torchvision rounds to even (PickScore, CLIPScore, MPS);
* ``stretch``: both sides by antialiased bicubic, clamped, whatever the aspect was (SigLIP).

A picture that has the tower's size already is not resampled by any of them.  ``resize_images`` is
Pillow's 8-bit version of the first and the last two; HPSv2 and SPO resize tensors, so for them ``fit`` is exact already.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from align.pictures import to_rgb
from align.rewards.resample import axis, product

Variant = Literal["clip", "hps", "hps2023", "spo", "clip_floor", "stretch"]
LARGEST = 4096
"""Longest side of what is resized by a product whether or not a gradient is wanted: a photograph's matrix takes more than it."""
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def to_pictures(images: Sequence[Image.Image]) -> Tensor:
    """Pictures of one size as (P, 3, H, W) float32 in [0, 1]. Raises ValueError if sizes differ."""
    if len({image.size for image in images}) > 1:
        raise ValueError("pictures of one call must have one size")
    arrays = np.stack([np.asarray(to_rgb(image)) for image in images])
    return torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 255


def to_images(pictures: Tensor) -> list[Image.Image]:
    """(P, 3, H, W) floats in [0, 1] as 8-bit pictures, rounded; values outside are clipped."""
    arrays = (pictures.detach().float().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(array) for array in arrays]


def resized(pictures: Tensor, height: int, width: int) -> Tensor:
    """(P, 3, H, W) by antialiased bicubic to (P, 3, height, width), clamped to [0, 1]."""
    return _sized(pictures, (height, width), (height, width), (0, 0), antialias=True).clamp(0, 1)


def _sized(
    pictures: Tensor,
    scaled: tuple[int, int],
    size: tuple[int, int],
    first: tuple[int, int],
    *,
    antialias: bool,
) -> Tensor:
    """(P, 3, H, W) scaled by bicubic, and of that ``size`` rows and columns from ``first`` on; black is beyond."""
    sides, device = pictures.shape[-2:], pictures.device
    if tuple(sides) == scaled == size:
        return pictures
    if max(*sides, *scaled) > LARGEST and not pictures.requires_grad:
        pictures = F.interpolate(
            pictures, size=scaled, mode="bicubic", align_corners=False, antialias=antialias
        )
        sides = pictures.shape[-2:]
    rows, columns = (
        axis(*one, "bicubic", antialias, device) for one in zip(sides, scaled, size, first, strict=True)
    )
    return product(pictures, rows, columns)


def _shortest_side(height: int, width: int, size: int, variant: Variant) -> tuple[int, int]:
    """Height and width with the shortest side scaled to ``size``."""
    if variant == "spo":  # Rounded to nearest.
        scale = size / min(height, width)
        return int(height * scale + 0.5), int(width * scale + 0.5)
    if height <= width:  # Truncated, as torchvision and transformers do.
        return size, int(size * width / height)
    return int(size * height / width), size


def _cut(surplus: int, variant: Variant) -> int:
    """Where a centre crop begins."""
    return surplus // 2 if variant == "clip_floor" else round(surplus / 2)


def fit(pictures: Tensor, size: int, variant: Variant) -> Tensor:
    """Scale and crop or pad to (P, 3, size, size), in [0, 1]; HPSv2's overshoot at edges is kept as published.

    Pictures are (P, 3, H, W) in about [0, 1]; the module's description says what each variant does.
    """
    if variant == "stretch":
        return resized(pictures, size, size)
    height, width = pictures.shape[-2:]
    if variant in ("hps", "hps2023"):
        scale = size / max(height, width)
        height, width = max(1, round(height * scale)), max(1, round(width * scale))  # a line stays one
        first = (-((size - height) // 2), -((size - width) // 2))
        return _sized(pictures.clamp(0, 1), (height, width), (size, size), first, antialias=variant == "hps")
    height, width = _shortest_side(height, width, size, variant)
    first = (_cut(height - size, variant), _cut(width - size, variant))
    return _sized(pictures, (height, width), (size, size), first, antialias=variant != "spo").clamp(0, 1)


def normalise(pictures: Tensor, mean: Sequence[float] = CLIP_MEAN, std: Sequence[float] = CLIP_STD) -> Tensor:
    """Subtract the channels' means and divide by their deviations."""
    offset, scale = (_channels(tuple(one), pictures.dtype, pictures.device) for one in (mean, std))
    return (pictures - offset) / scale


@lru_cache(maxsize=16)
def _channels(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A number a channel, (3, 1, 1); kept, as sending it to a device waits for the device."""
    return torch.tensor(values, dtype=dtype, device=device)[:, None, None]


def resize_images(images: Sequence[Image.Image], size: int, variant: Variant) -> list[Image.Image]:
    """Pillow's 8-bit resize, and crop, to ``size`` x ``size``; for ``hps`` and ``spo`` only RGB."""
    images = [to_rgb(image) for image in images]
    if variant == "stretch":
        return [image.resize((size, size), Image.Resampling.BICUBIC) for image in images]
    if variant not in ("clip", "clip_floor"):
        return images
    out = []
    for image in images:
        height, width = _shortest_side(image.height, image.width, size, variant)
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        top, left = _cut(height - size, variant), _cut(width - size, variant)
        out.append(image.crop((left, top, left + size, top + size)))
    return out
