"""Finding a backbone's files, without importing torch, and loading it."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from align.errors import MissingWeights, WrongWeights

if TYPE_CHECKING:
    import torch

    from align.backbones.unet import UNetBackbone

EMBEDDED = {"shapes": Path(__file__).parent.parent / "shapes" / "weights"}
"""Weights that come with the package, by the name that ``backbone.weights`` takes."""

FILES = (
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/tokenizer.json",
    "scheduler/scheduler_config.json",
)
"""What a UNet backbone is made of, in diffusers' layout."""


def folder_of(weights: str) -> Path:
    """The folder that ``backbone.weights`` means: an embedded one by name, or any path."""
    return EMBEDDED.get(weights) or Path(weights).expanduser()


def missing_files(weights: str) -> list[Path]:
    """Files that a backbone needs and that are not there; empty if all is well."""
    folder = folder_of(weights)
    return [folder / name for name in FILES if not (folder / name).is_file()]


@lru_cache
def fingerprint(weights: str) -> dict[str, str]:
    """sha256 of every file of a backbone, by its name in the folder.

    Raises:
        MissingWeights: if a file is not there.
    """
    folder = folder_of(weights)
    if gone := missing_files(weights):
        raise MissingWeights(f"backbone.weights={weights} lacks {', '.join(map(str, gone))}")
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES}


def load(
    weights: str,
    device: torch.device,
    dtype: torch.dtype,
    height: int,
    width: int,
    attention_stride: int | None = None,
) -> UNetBackbone:
    """Load a backbone.

    Raises:
        MissingWeights: if a file is not there.
        WrongWeights: if a file holds something else.
    """
    fingerprint(weights)
    from safetensors import SafetensorError

    from align.backbones.unet import UNetBackbone

    try:
        return UNetBackbone(folder_of(weights), device, dtype, height, width, attention_stride)
    except (SafetensorError, ValueError, RuntimeError, KeyError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WrongWeights(f"backbone.weights={weights} cannot be loaded: {first}") from error
