"""Finding a backbone's files, without importing torch, and loading it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from align.backbones.recipe import Recipe
from align.backbones.stated import Stated, read_stated
from align.checkpoints.layout import Piece, file_piece, module_piece, pipeline_piece
from align.errors import MissingWeights, WrongWeights

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from align.backbones.unet import UNetBackbone


def pieces(recipe: Recipe) -> tuple[Piece, ...]:
    """The files of a backbone by where they come from, the pipeline first; of alternatives the first complete one."""
    chosen = {recipe.form.network: recipe.dtype, "vae": recipe.decoder_dtype, "text": recipe.text_dtype}
    half = frozenset(role for role, dtype in chosen.items() if (dtype or recipe.dtype) != "float32")
    swaps, single = recipe.swaps, recipe.single_file is not None
    whole = (
        pipeline_piece(name, recipe.layout, half, swaps, single, recipe.without) for name in recipe.weights
    )
    first = next(whole)
    found = [next((piece for piece in (first, *whole) if piece.complete()), first)]
    files = {"single_file": recipe.single_file, "lora": recipe.lora}
    found += [module_piece(name, role, role in half) for role, name in swaps.items()]
    return (*found, *(file_piece(name, role) for role, name in files.items() if name is not None))


def stated(recipe: Recipe, found: Sequence[Piece] = ()) -> Stated:
    """What a backbone's files state, checked; ``found`` are its ``pieces`` if they are known already.

    Raises:
        WrongWeights: if it cannot be sampled; all files have to be there.
    """
    found = found or pieces(recipe)
    try:
        return read_stated(found, recipe)
    except (OSError, ValueError, TypeError) as error:
        raise _wrong(found, error) from error


def load(
    recipe: Recipe,
    device: torch.device,
    height: int,
    width: int,
    checkpointing: bool = False,
    found: Sequence[Piece] = (),
    **options: Any,
) -> Any:
    """Load a backbone, a ``UNetBackbone`` or a ``TransformerBackbone``, which see for the arguments and options.

    ``found`` are its ``pieces`` if they are known already.

    Raises:
        MissingWeights: if a file is not there.
        WrongWeights: if a file holds something else.
    """
    found = found or pieces(recipe)
    for piece in found:
        if not piece.complete():
            gone = [str(path) for path in piece.paths if not path.is_file()]
            raise MissingWeights(f"{_option(piece)}={piece.reference} lacks {', '.join(gone)}")
    from safetensors import SafetensorError

    from align.backbones.modules import load_modules

    try:
        modules = load_modules(found, recipe, device)
        options = {"guidance": recipe.guidance, "checkpointing": checkpointing, **options}
        if recipe.form.network == "unet":
            from align.backbones.unet import UNetBackbone

            return UNetBackbone(modules, height, width, **options)
        from align.backbones.transformer import TransformerBackbone

        return TransformerBackbone(modules, recipe.layout, height, width, **options)
    except (SafetensorError, ValueError, TypeError, RuntimeError, KeyError, OSError, AttributeError) as error:
        if isinstance(error, RuntimeError) and "out of memory" in str(error).lower():
            raise
        raise _wrong(found, error) from error


def load_folder(folder: Path, device: torch.device) -> UNetBackbone:
    """A folder in Stable Diffusion's layout, in float32 and for pictures of the embedded world's size."""
    loaded: UNetBackbone = load(Recipe((str(folder),)), device, 64, 64)
    return loaded


def _wrong(found: Sequence[Piece], error: Exception) -> WrongWeights:
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    names = ", ".join(f"{_option(piece)}={piece.reference}" for piece in found)
    return WrongWeights(f"{names} cannot be loaded: {first}")


def _option(piece: Piece) -> str:
    return f"backbone.{'weights' if piece.role == 'pipeline' else piece.role}"
