"""Finding a backbone's files, without importing torch, and loading it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from align.backbones.stated import Stated, read_stated
from align.checkpoints.layout import Layout, Piece, file_piece, module_piece, pipeline_piece
from align.checkpoints.reference import EMBEDDED
from align.errors import MissingWeights, WrongWeights

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from align.backbones.unet import UNetBackbone

__all__ = ["EMBEDDED", "Recipe", "load", "pieces"]


@dataclass(frozen=True)
class Recipe:
    """Where a backbone's modules come from, and in which numbers they compute.

    Attributes:
        weights: references to whole pipelines; the first that is complete counts.
        layout: which modules the pipeline has.
        consistency: whether the network is a latent consistency model that reads the guidance scale.
        single_file: reference to a file that UNet, autoencoder and text encoders come from instead.
        unet, vae: references to a network or autoencoder used instead of those.
        lora: reference to a file of low-rank updates, merged into UNet and text encoders.
        dtype: torch's name of the network's numbers.
        decoder_dtype, text_dtype: of the autoencoder and text encoders; ``None`` for ``dtype``, except that an
            autoencoder that says it overflows in float16 gets float32.
    """

    weights: tuple[str, ...]
    layout: Layout = "sd"
    consistency: bool = False
    single_file: str | None = None
    unet: str | None = None
    vae: str | None = None
    lora: str | None = None
    dtype: str = "float32"
    decoder_dtype: str | None = None
    text_dtype: str | None = None


def pieces(recipe: Recipe) -> list[Piece]:
    """The files of a backbone by where they come from, the pipeline first; of alternatives the first complete one."""
    chosen = {"unet": recipe.dtype, "vae": recipe.decoder_dtype, "text": recipe.text_dtype}
    half = frozenset(role for role, dtype in chosen.items() if (dtype or recipe.dtype) != "float32")
    swaps = {role: name for role, name in (("unet", recipe.unet), ("vae", recipe.vae)) if name is not None}
    single = recipe.single_file is not None
    whole = [pipeline_piece(name, recipe.layout, half, swaps, single) for name in recipe.weights]
    found = [next((piece for piece in whole if piece.complete()), whole[0])]
    files = {"single_file": recipe.single_file, "lora": recipe.lora}
    found += [module_piece(name, role, role in half) for role, name in swaps.items()]
    return found + [file_piece(name, role) for role, name in files.items() if name is not None]


def stated(recipe: Recipe) -> Stated:
    """What a backbone's files state, checked.

    Raises:
        WrongWeights: if it cannot be sampled; all files have to be there.
    """
    found = pieces(recipe)
    try:
        return read_stated(found, recipe)
    except (OSError, ValueError, TypeError) as error:
        raise _wrong(found, error) from error


def load(
    recipe: Recipe,
    device: torch.device,
    height: int,
    width: int,
    attention_stride: int | None = None,
    checkpointing: bool = False,
) -> UNetBackbone:
    """Load a backbone; for the arguments see :class:`~align.backbones.unet.UNetBackbone`.

    Raises:
        MissingWeights: if a file is not there.
        WrongWeights: if a file holds something else.
    """
    found = pieces(recipe)
    for piece in found:
        if not piece.complete():
            gone = [str(path) for path in piece.paths if not path.is_file()]
            raise MissingWeights(f"{_option(piece)}={piece.reference} lacks {', '.join(gone)}")
    from safetensors import SafetensorError

    from align.backbones.modules import load_modules
    from align.backbones.unet import UNetBackbone

    try:
        modules = load_modules(found, recipe, device)
        return UNetBackbone(modules, height, width, attention_stride, checkpointing)
    except (
        SafetensorError,
        ValueError,
        TypeError,
        RuntimeError,
        KeyError,
        OSError,
        AttributeError,
    ) as error:
        if isinstance(error, RuntimeError) and "out of memory" in str(error).lower():
            raise
        raise _wrong(found, error) from error


def load_folder(folder: Path, device: torch.device) -> UNetBackbone:
    """All of a folder in diffusers' layout, in float32 and for pictures of the embedded world's size."""
    return load(Recipe((str(folder),)), device, 64, 64)


def _wrong(found: Sequence[Piece], error: Exception) -> WrongWeights:
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    names = ", ".join(f"{_option(piece)}={piece.reference}" for piece in found)
    return WrongWeights(f"{names} cannot be loaded: {first}")


def _option(piece: Piece) -> str:
    return f"backbone.{'weights' if piece.role == 'pipeline' else piece.role}"
