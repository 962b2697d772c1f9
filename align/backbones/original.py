"""Modules from one file in the layout of the original Stable Diffusion, as web interfaces read it.

diffusers knows which tensor is which; sizes come from a config in its own layout, never from a guess by the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    create_diffusers_clip_model_from_ldm,
)
from safetensors import safe_open
from torch import Tensor, nn

from align.checkpoints.weight_files import build, fill, read_json, read_tensors

Module = TypeVar("Module", bound=nn.Module)

_CONVERTERS = {UNet2DConditionModel: convert_ldm_unet_checkpoint, AutoencoderKL: convert_ldm_vae_checkpoint}
_MARKS = ("input_blocks.", "encoder.down.", "cond_stage_model.", "conditioner.")
"""Parts of names that the original layout has and diffusers' own has not."""


def is_original(file: Path) -> bool:
    """Whether a file's names are those of the original layout. Raises SafetensorError, OSError."""
    with safe_open(file, framework="pt") as tensors:
        return any(mark in name for name in tensors.keys() for mark in _MARKS)  # noqa: SIM118


def load_network(kind: Any, config: Path, file: Path) -> Any:
    """A UNet or autoencoder, float32. Raises WrongWeights naming what is missing or of another shape."""
    facts = read_json(config)
    tensors = _CONVERTERS[kind](read_tensors(file), config=facts)
    return fill(build(lambda: kind.from_config(facts)), tensors, file)


def load_text(kind: type[Module], config: Path, file: Path) -> Module:
    """A CLIP text encoder, float32. Raises ValueError naming what is missing."""
    folder = str(config.parent)
    model: Module = create_diffusers_clip_model_from_ldm(
        kind, read_tensors(file), config=folder, local_files_only=True
    )
    if empty := sorted(name for name, value in model.state_dict().items() if value.is_meta):
        raise ValueError(f"{len(empty)} tensors missing: {', '.join(empty[:3])}")
    return model


def check_training(file: Path, predicts: str, alphas: Tensor) -> None:
    """Refuse a file that says that it was trained in another way than the scheduler beside it, which states what the network
    ``predicts`` and ``alphas_cumprod``. Raises ValueError.
    """
    with safe_open(file, framework="pt") as tensors:
        names = tensors.keys()
        said = tensors.get_tensor("alphas_cumprod").float() if "alphas_cumprod" in names else alphas
    if "v_pred" in names and predicts != "v_prediction":
        raise ValueError(
            f"{file} predicts v, and the scheduler of backbone.weights says prediction_type={predicts}"
        )
    if said.shape != alphas.shape or not torch.allclose(said, alphas, atol=1e-3):
        raise ValueError(
            f"{file} has alphas_cumprod of another schedule than the scheduler of backbone.weights"
        )
