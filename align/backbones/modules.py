"""The heavy parts of a backbone, and loading them from files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from safetensors import safe_open
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from align.backbones.lora import merge
from align.backbones.registry import Recipe
from align.backbones.stated import read_object, read_stated
from align.backbones.text import TextEncoder
from align.checkpoints.layout import Piece

Module = TypeVar("Module", bound=torch.nn.Module)


@dataclass(frozen=True)
class Modules:
    """A pipeline, loaded and on its device.

    Attributes:
        unet, vae: network and autoencoder.
        text: text encoders, one or two; none for a backbone that is only fed embeddings.
        zero_empty: whether an empty negative prompt is all zeros.
        scheduler_config: the process that it was trained on; see :func:`~align.processes.schedule.read_schedule`.
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
    transformers_logging.disable_progress_bar()  # the run has a progress line of its own
    by_role = {piece.role: piece for piece in pieces}
    pipeline = by_role["pipeline"]
    dtype: torch.dtype = getattr(torch, recipe.dtype)
    stated = read_stated(pieces, recipe)
    unet_folder, variant = _place(by_role, "unet")
    unet = _filled(UNet2DConditionModel, unet_folder, variant, torch_dtype=dtype)
    if "lora" in by_role:
        piece = by_role["lora"]
        with safe_open(piece.folder / piece.files[0], framework="pt") as file:
            merge(unet, {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {})  # noqa: SIM118
    vae_folder, variant = _place(by_role, "vae")
    vae = _filled(AutoencoderKL, vae_folder, variant, torch_dtype=decoder_dtype(vae_folder, recipe))
    return Modules(
        unet,
        vae,
        tuple(_text_encoders(pipeline, recipe)),
        recipe.layout == "sdxl" and _zero_empty(pipeline.folder),
        stated.schedule,
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
    overflows = read_object(vae / "config.json").get("force_upcast", False)
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
        dtype = getattr(torch, recipe.text_dtype or recipe.dtype)
        # Sizes that differ are told by _filled: transformers' own error names no tensor.
        options = {"dtype": dtype, "ignore_mismatched_sizes": True}
        model = _filled(kind, folder, pipeline.variant(folder.name), **options)
        found.append(TextEncoder(_tokenizer(pipeline.folder / f"tokenizer{number}"), model))
    return found


def _filled(kind: type[Module], folder: Path, variant: str | None, **options: Any) -> Module:
    """A model of diffusers or transformers, every tensor of which is in the files.

    Left to themselves the libraries warn at most and let random numbers stand for what is missing; tensors that
    no part of the model reads are left out.

    Args:
        kind: class of the model.
        folder: where its files are.
        variant: ``fp16`` for half files.
        options: more for ``from_pretrained``.

    Raises:
        OSError, ValueError: a file is damaged; or naming up to three tensors that are missing or of another shape.
    """
    read_object(folder / "config.json")
    try:
        with _contained():
            model, facts = kind.from_pretrained(  # type: ignore[attr-defined]
                folder,
                variant=variant,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                **options,
            )
    except (OSError, MemoryError, RuntimeError):
        raise
    except Exception as error:  # of many classes; says much advice but not of which file
        first = (str(error).splitlines() or [type(error).__name__])[0].partition(". ")[0]
        raise ValueError(f"{folder} holds no {kind.__name__}: {first}") from error
    wrong = sorted({*facts["missing_keys"], *(key for key, *_ in facts["mismatched_keys"])})
    if wrong:
        names = ", ".join(wrong[:3]) + (" ..." if len(wrong) > 3 else "")
        raise ValueError(
            f"{folder} does not fit {kind.__name__}: {len(wrong)} tensors missing or of another shape: {names}"
        )
    return model


@contextmanager
def _contained() -> Iterator[None]:
    """Keeps in what the libraries do beside loading.

    They print pages about single tensors, where what matters is raised; and where diffusers cannot build a model
    from its config, torch's default data type stays the model's, for all later runs of the process too.
    """
    before = diffusers_logging.get_verbosity(), transformers_logging.get_verbosity()
    dtype = torch.get_default_dtype()
    diffusers_logging.set_verbosity_error()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(before[0])
        transformers_logging.set_verbosity(before[1])
        torch.set_default_dtype(dtype)


def _tokenizer(folder: Path) -> CLIPTokenizer:
    """The tokenizer of a folder. Raises ValueError."""
    try:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the parser of vocabularies has no class of its own for what it refuses
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{folder} holds no CLIP tokenizer: {first}") from error


def _zero_empty(pipeline: Path) -> bool:
    return bool(read_object(pipeline / "model_index.json").get("force_zeros_for_empty_prompt", True))
