"""From pictures to the clean latents that an autoencoder makes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchvision.transforms import functional

from align.sampling.host import read

if TYPE_CHECKING:
    from PIL.Image import Image


def to_square(image: Image, height: int, width: int) -> Tensor:
    """(3, height, width) in [-1, 1]: resized until it covers the size (bicubic, Pillow's), its middle kept."""
    from PIL import ImageOps
    from PIL.Image import Resampling

    fitted: Tensor = functional.to_tensor(ImageOps.fit(image, (width, height), Resampling.BICUBIC))
    return fitted * 2 - 1


def scaled(latents: Tensor, autoencoder: Mapping[str, Any]) -> Tensor:
    """What ``align.backbones.base.unscaled`` undoes, of (P, C, h, w)."""
    mean, std = (autoencoder.get(key) for key in ("latents_mean", "latents_std"))
    shift = autoencoder.get("shift_factor") or 0.0
    latents = latents - shift
    if mean is not None:
        latents = latents - latents.new_tensor(mean).view(-1, 1, 1)
    latents = latents * autoencoder["scaling_factor"]
    return latents if std is None else latents / latents.new_tensor(std).view(-1, 1, 1)


def encoder(backbone: Any, height: int, width: int) -> Callable[[Sequence[Image]], Tensor]:
    """Pictures to clean latents (P, C, h, w) float32 on the CPU: the means of the autoencoder's posteriors."""

    @torch.no_grad()
    def encode(images: Sequence[Image]) -> Tensor:
        pictures = torch.stack([to_square(image, height, width) for image in images])
        vae = backbone.vae
        found = vae.encode(pictures.to(backbone.device, vae.dtype)).latent_dist.mean
        return read(scaled(found.float(), vae.config))

    return encode
