"""Writing trained parts to the shipped folder: diffusers' and transformers' layouts, half precision."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from scripts.shapes_training.denoiser import Denoiser, scheduler


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
    half.unet.set_default_attn_processor()
    half.unet.save_pretrained(weights / "unet")
    half.text_encoder.save_pretrained(weights / "text_encoder")
    scheduler().save_pretrained(weights / "scheduler")
