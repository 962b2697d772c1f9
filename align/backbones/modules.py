"""The heavy parts of a backbone, and loading them from files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors import safe_open
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
from transformers.utils.logging import disable_progress_bar

from align.backbones.lora import merge
from align.backbones.registry import Recipe
from align.backbones.text import TextEncoder
from align.checkpoints.layout import Layout, Piece


@dataclass(frozen=True)
class Modules:
    """A pipeline, loaded and on its device.

    Attributes:
        unet, vae: network and autoencoder.
        text: text encoders, one or two; none for a backbone that is only fed embeddings.
        zero_empty: whether an empty negative prompt is all zeros.
        scheduler_config: config of the diffusers scheduler.
        device: where it computes.
    """

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text: tuple[TextEncoder, ...]
    zero_empty: bool
    scheduler_config: dict[str, Any]
    device: torch.device

    def __post_init__(self) -> None:
        for module in (self.unet, self.vae, *(encoder.model for encoder in self.text)):
            module.requires_grad_(False).eval()
        self.unet.to(self.device, memory_format=torch.channels_last)
        self.vae.to(self.device, memory_format=torch.channels_last)


def load_modules(pieces: Sequence[Piece], recipe: Recipe, device: torch.device) -> Modules:
    """Load what :func:`align.backbones.registry.pieces` found.

    Raises:
        OSError, RuntimeError, ValueError, KeyError: a file does not hold what its name says.
    """
    disable_progress_bar()  # the run has a progress line of its own
    by_role = {piece.role: piece for piece in pieces}
    pipeline = by_role["pipeline"]
    dtype: torch.dtype = getattr(torch, recipe.dtype)
    unet_folder, variant = _place(by_role, "unet")
    unet = UNet2DConditionModel.from_pretrained(
        unet_folder, torch_dtype=dtype, variant=variant, use_safetensors=True, local_files_only=True
    )
    _check_layout(unet, recipe.layout)
    if "lora" in by_role:
        piece = by_role["lora"]
        with safe_open(piece.folder / piece.files[0], framework="pt") as file:
            merge(unet, {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {})  # noqa: SIM118
    vae_folder, variant = _place(by_role, "vae")
    vae = AutoencoderKL.from_pretrained(
        vae_folder,
        torch_dtype=decoder_dtype(vae_folder, recipe),
        variant=variant,
        use_safetensors=True,
        local_files_only=True,
    )
    return Modules(
        unet,
        vae,
        tuple(_text_encoders(pipeline, recipe)),
        recipe.layout == "sdxl" and _zero_empty(pipeline.folder),
        dict(DDIMScheduler.from_pretrained(pipeline.folder / "scheduler", local_files_only=True).config),
        device,
    )


def decoder_dtype(vae: Path, recipe: Recipe) -> torch.dtype:
    """Numbers of the autoencoder in a folder: float16 only if asked for by name, or if its config allows it.

    ``force_upcast`` is read from the file: diffusers takes an absent one for true, yet Stable Diffusion's
    autoencoder, whose config is older than the key, works in float16.
    """
    if recipe.decoder_dtype is not None:
        return getattr(torch, recipe.decoder_dtype)
    if recipe.dtype != "float16":
        return getattr(torch, recipe.dtype)
    overflows = json.loads((vae / "config.json").read_text(encoding="utf-8")).get("force_upcast", False)
    return torch.float32 if overflows else torch.float16


def _place(pieces: dict[str, Piece], role: str) -> tuple[Path, str | None]:
    """Folder and variant of a module: its own piece's, else the pipeline's."""
    if role in pieces:
        return pieces[role].folder, pieces[role].variant("")
    return pieces["pipeline"].folder / role, pieces["pipeline"].variant(role)


def _text_encoders(pipeline: Piece, recipe: Recipe) -> list[TextEncoder]:
    numbers = ("",) if recipe.layout == "sd" else ("", "_2")
    found = []
    for number in numbers:
        folder = pipeline.folder / f"text_encoder{number}"
        # Only the second encoder's pooled output is projected; of the first, hidden states alone are read.
        kind = CLIPTextModelWithProjection if number else CLIPTextModel
        model = kind.from_pretrained(
            folder,
            dtype=getattr(torch, recipe.text_dtype or recipe.dtype),
            variant=pipeline.variant(folder.name),
            use_safetensors=True,
            local_files_only=True,
        )
        tokenizer = CLIPTokenizer.from_pretrained(
            pipeline.folder / f"tokenizer{number}", local_files_only=True
        )
        found.append(TextEncoder(tokenizer, model))
    return found


def _zero_empty(pipeline: Path) -> bool:
    index = json.loads((pipeline / "model_index.json").read_text(encoding="utf-8"))
    return bool(index.get("force_zeros_for_empty_prompt", True))


def _check_layout(unet: UNet2DConditionModel, layout: Layout) -> None:
    """Refuse a network of the other layout; raises ValueError."""
    kind = unet.config.addition_embed_type
    if kind != {"sd": None, "sdxl": "text_time"}[layout]:
        raise ValueError(f"the UNet (addition_embed_type {kind}) is not of backbone.layout={layout}")
