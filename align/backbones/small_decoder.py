"""The decoder of a distilled autoencoder (diffusers' AutoencoderTiny): nearly the same picture at a fraction of the cost."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from align.backbones.base import unscaled
from align.backbones.stated import SHIFTS, check_latents
from align.checkpoints.weight_files import build, fill, read_json, read_tensors
from align.errors import WrongWeights


def load_small_decoder(
    folder: Path, weights: str, latents: tuple[int, ...], device: torch.device, dtype: torch.dtype
) -> Callable[[Tensor], Tensor]:
    """From clean latents (P, C, h, w), scaled as the process has them, to pictures (P, 3, H, W) float32, about [0, 1].

    Read from the ``folder`` of a model in diffusers' layout, in which ``weights`` is the safetensors file, or the index of its
    shards; its encoder need not be there.  ``latents`` is the shape (C, h, w) of those that it will be given.

    Raises:
        MissingWeights, WrongWeights: a file is not there, holds something else, or is for other latents.
    """
    config = read_json(folder / "config.json")
    if config.get("_class_name") != "AutoencoderTiny":
        raise WrongWeights(f"{folder / 'config.json'} is of {config.get('_class_name')}, not AutoencoderTiny")
    # Published files have more in them than the class takes, about which it would warn.
    taken = signature(AutoencoderTiny.__init__).parameters.keys() & config.keys()
    try:
        model = build(lambda: AutoencoderTiny(**{key: config[key] for key in taken}))
        check_latents(config)
    except (TypeError, ValueError, KeyError) as error:
        raise WrongWeights(f"{folder / 'config.json'} builds no AutoencoderTiny: {error}") from None
    channels = model.config.latent_channels
    if channels != latents[0]:
        raise WrongWeights(
            f"{folder} decodes latents of {channels} channels, and the backbone's have {latents[0]}"
        )
    path = folder / weights
    tensors = read_tensors(path).items()
    own = {name.removeprefix("decoder."): one for name, one in tensors if name.startswith("decoder.")}
    decoder = fill(model.decoder, own, path).to(device, dtype).to(memory_format=torch.channels_last)
    # The class takes neither mean nor deviation, yet a file may state them.
    scale = {**model.config, **{key: config[key] for key in SHIFTS if key in config}}

    def decode(z0: Tensor) -> Tensor:
        z = unscaled(z0, scale).to(dtype)
        pictures: Tensor = decoder(z.contiguous(memory_format=torch.channels_last))
        return (pictures.float() + 1) / 2

    return decode
