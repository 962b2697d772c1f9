"""Which files a pipeline is made of in diffusers' layout, and which of several forms of a file is there.

Imports no torch.  Only safetensors count as weights: a ``.bin`` is a pickle and is not looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from align.checkpoints.reference import HubReference, folder_of, hub_reference

Layout = Literal["sd", "sdxl"]
"""Stable Diffusion's one text encoder, or Stable Diffusion XL's two."""

HALF_FILES = frozenset(
    {"stable-diffusion-v1-5/stable-diffusion-v1-5", "stabilityai/stable-diffusion-xl-base-1.0"}
)
"""Repositories that are known to hold ``*.fp16.safetensors`` beside the full files, at half the download."""

MODEL = "diffusion_pytorch_model"
"""Stem of diffusers' weight files; transformers' is ``model``."""


@dataclass(frozen=True)
class Piece:
    """The files that one reference gives a model.

    Attributes:
        role: ``pipeline``, ``unet``, ``vae`` or ``lora``.
        reference: as the configuration has it.
        folder: where the files are.
        files: paths within the folder.
    """

    role: str
    reference: str
    folder: Path
    files: tuple[str, ...]

    @property
    def hub(self) -> HubReference | None:
        """Repository and folder within it that the files are relative to; ``None`` if they are local."""
        found = hub_reference(self.reference)
        if found is None or self.role != "lora":
            return found
        return replace(found, folder=_parent(found.folder))

    def complete(self) -> bool:
        """Whether all files are there."""
        return all((self.folder / name).is_file() for name in self.files)

    def variant(self, module: str) -> str | None:
        """``fp16`` if the files of a module (a sub-folder, or empty for the folder itself) are half ones."""
        own = [name for name in self.files if _parent(name) == module]
        return "fp16" if any(name.endswith(".fp16.safetensors") for name in own) else None


def pipeline_piece(reference: str, layout: Layout, half: frozenset[str], without: Sequence[str]) -> Piece:
    """A whole pipeline.

    Args:
        reference: embedded name, folder or repository.
        layout: which modules it has.
        half: roles (``unet``, ``vae``, ``text``) that compute in 16 bit, for which half files will do.
        without: modules that come from elsewhere.
    """
    encoders = ("",) if layout == "sd" else ("", "_2")
    files: list[str] = ["scheduler/scheduler_config.json"]
    # Says whether the empty prompt is zeros.
    files += ["model_index.json"] if layout == "sdxl" else []
    for module in ("unet", "vae"):
        if module not in without:
            files += _weights(reference, module, MODEL, module in half)
    for number in encoders:
        files += _weights(reference, f"text_encoder{number}", "model", "text" in half)
        files += _tokenizer(reference, f"tokenizer{number}")
    return Piece("pipeline", reference, folder_of(reference), tuple(sorted(files)))


def module_piece(reference: str, role: str, half: bool) -> Piece:
    """A UNet or autoencoder that is used instead of the pipeline's own."""
    files = _weights(reference, "", MODEL, half)
    return Piece(role, reference, folder_of(reference), tuple(files))


def lora_piece(reference: str) -> Piece:
    """One file of low-rank updates."""
    path = folder_of(reference)
    return Piece("lora", reference, path.parent, (path.name,))


def _weights(reference: str, module: str, stem: str, half: bool) -> list[str]:
    full, small = f"{stem}.safetensors", f"{stem}.fp16.safetensors"
    hub = hub_reference(reference)
    wanted = [small, full] if hub is not None and hub.repo in HALF_FILES else [full, small]
    forms = [(name,) for name in ([small, full] if half else [full])]
    return _within(module, ("config.json", *_first(reference, module, forms, (wanted[0] if half else full,))))


def _tokenizer(reference: str, module: str) -> list[str]:
    """One file in today's layout, vocabulary and merges in that of the older repositories."""
    new = ("tokenizer.json", "tokenizer_config.json")
    old = ("merges.txt", "special_tokens_map.json", "tokenizer_config.json", "vocab.json")
    bare = ("merges.txt", "tokenizer_config.json", "vocab.json")
    wanted = new if hub_reference(reference) is None else old
    return _within(module, _first(reference, module, [new, old, bare], wanted))


def _first(
    reference: str, module: str, forms: Sequence[tuple[str, ...]], wanted: tuple[str, ...]
) -> tuple[str, ...]:
    """The first form whose files are all there; if none is, the one to ask for."""
    folder = folder_of(reference) / module
    return next((form for form in forms if all((folder / name).is_file() for name in form)), wanted)


def _within(module: str, names: Sequence[str]) -> list[str]:
    return [f"{module}/{name}" if module else name for name in names]


def _parent(name: str) -> str:
    parent = str(PurePosixPath(name).parent)
    return "" if parent == "." else parent
