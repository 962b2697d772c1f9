"""Writing trained parts to the shipped folder: diffusers' and transformers' layouts, half precision."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel, UNet2DConditionModel
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPModel, CLIPVisionModelWithProjection

from align.rewards import open_clip
from align.rewards.aesthetic import Head
from align.rewards.imagereward import BlipRegressor
from align.rewards.preprocess import CLIP_MEAN, CLIP_STD
from align.rewards.step_aware import StepAwareModel
from scripts.shapes_training import flow
from scripts.shapes_training.denoiser import Denoiser, scheduler
from scripts.shapes_training.tokenizer import MAX_LENGTH
from scripts.shapes_training.towers import HEAD


def export_autoencoder(model: AutoencoderKL, weights: Path) -> None:
    """``weights/vae``."""
    half = copy.deepcopy(model).cpu().to(torch.float16)
    half.save_pretrained(weights / "vae")
    # diffusers notes the folder that a model came from, which is nobody's business.
    path = weights / "vae" / "config.json"
    config = json.loads(path.read_text())
    config.pop("_name_or_path", None)
    path.write_text(json.dumps(config, indent=2) + "\n")


def export_denoiser(model: Denoiser, weights: Path) -> None:
    """``weights/unet``, ``weights/text_encoder`` and ``weights/scheduler``."""
    half = copy.deepcopy(model).cpu().to(torch.float16)
    half.unet.save_pretrained(weights / "unet")
    half.text_encoder.save_pretrained(weights / "text_encoder")
    scheduler().save_pretrained(weights / "scheduler")


PIPELINE = {
    "_class_name": "StableDiffusion3Pipeline",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "transformer": ["diffusers", "SD3Transformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    **{f"{kind}_{number}": [None, None] for number in (2, 3) for kind in ("text_encoder", "tokenizer")},
}
"""``model_index.json`` of the flow: of the three text encoders of its class it has the first."""


def export_flow(model: SD3Transformer2DModel, weights: Path) -> None:
    """``weights/flow``: transformer and scheduler, and copies of what they share with the denoiser."""
    folder = weights / "flow"
    copy.deepcopy(model).cpu().to(torch.float16).save_pretrained(folder / "transformer")
    flow.scheduler().save_pretrained(folder / "scheduler")
    for name in ("vae", "text_encoder", "tokenizer"):
        shutil.copytree(weights / name, folder / name, dirs_exist_ok=True)
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").chmod(0o644)
    _write(folder / "model_index.json", PIPELINE)


def export_turbo(model: UNet2DConditionModel, weights: Path) -> None:
    """``weights/turbo``: the student alone, which stands in for the denoiser's network."""
    folder = weights / "turbo"
    copy.deepcopy(model).cpu().to(torch.float16).save_pretrained(folder)
    (folder / "diffusion_pytorch_model.safetensors").chmod(0o644)


def _save_half(module: nn.Module, path: Path) -> None:
    """Write a module's state in half precision, readable by everyone."""
    state = {name: tensor.detach().cpu().half().contiguous() for name, tensor in module.state_dict().items()}
    save_file(state, path, metadata={"format": "pt"})
    path.chmod(0o644)


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def export_clip(model: CLIPModel | CLIPVisionModelWithProjection, folder: Path) -> None:
    """A CLIP (or its image tower) in transformers' layout, half precision; the model is not changed."""
    copy.deepcopy(model).cpu().half().save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)


def export_open_clip(model: nn.Module, config: dict[str, object], folder: Path) -> None:
    """An open_clip model in open_clip's layout, half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(
        folder / open_clip.CONFIG,
        {"model_cfg": config, "preprocess_cfg": {"mean": list(CLIP_MEAN), "std": list(CLIP_STD)}},
    )
    _save_half(model, folder / open_clip.WEIGHTS)


def export_imagereward(model: BlipRegressor, folder: Path) -> None:
    """A BLIP regressor, half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(
        folder / "config.json",
        {
            "vision_config": model.vision_model.config.to_diff_dict(),
            "text_config": model.text_model.config.to_diff_dict(),
            "head": list(HEAD),
            "mean": model.mean,
            "deviation": model.deviation,
            "max_length": MAX_LENGTH,
        },
    )
    _save_half(model, folder / "model.safetensors")


def export_aesthetic(tower: CLIPVisionModelWithProjection, head: Head, folder: Path) -> None:
    """An aesthetic predictor, half precision."""
    export_clip(tower, folder)
    widths = [layer.in_features for layer in head.layers]
    _write(folder / "head.json", {"widths": widths, "activation": head.activation})
    _save_half(head, folder / "head.safetensors")


def export_spm(model: StepAwareModel, folder: Path) -> None:
    """A step-aware model under the released checkpoints' names, half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    _save_half(model, folder / "model.safetensors")
