"""The heavy parts of a backbone, and loading them from files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, ModelMixin
from diffusers.utils import logging as diffusers_logging
from transformers import CLIPTextModel, CLIPTextModelWithProjection, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from align.backbones.original import check_training, is_original, load_network, load_text
from align.backbones.recipe import Recipe
from align.backbones.stated import read_object, read_stated
from align.backbones.switches import switch
from align.backbones.text import TextEncoder
from align.checkpoints.layout import (
    INDEX,
    MODEL,
    SAFE,
    Part,
    Piece,
    check_shards,
    entry,
    is_file,
    tokenizer_of,
)
from align.errors import WrongWeights
from align.processes.ddim import scheduler_of

Module = TypeVar("Module", bound=torch.nn.Module)


@dataclass(frozen=True)
class Modules:
    """A pipeline, loaded and on its device.

    Attributes:
        network: the UNet or transformer.
        text: text encoders, in their order; none for a backbone that is only fed embeddings.
        zero_empty: whether an empty negative prompt is all zeros.
        scheduler_config: the process that it was trained on; see ``read_schedule``.
        placed: whether the network is on its device already, or comes there by itself.
    """

    network: ModelMixin
    vae: AutoencoderKL
    text: tuple[TextEncoder, ...]
    zero_empty: bool
    scheduler_config: dict[str, Any]
    device: torch.device
    placed: bool = False

    def __post_init__(self) -> None:
        for module in (self.network, self.vae, *(encoder.model for encoder in self.text)):
            module.requires_grad_(False).eval()
        for module in (self.network, self.vae):
            flat = all(parameter.ndim < 5 for parameter in module.parameters())  # pictures, not films
            if not (self.placed and module is self.network):
                module.to(self.device, memory_format=torch.channels_last if flat else torch.preserve_format)


def load_modules(pieces: Sequence[Piece], recipe: Recipe, device: torch.device) -> Modules:
    """Load what ``align.backbones.registry.pieces`` found.

    Raises:
        OSError, RuntimeError, ValueError, KeyError: a file does not hold what its name says.
    """
    transformers_logging.disable_progress_bar()  # the run has a progress line of its own
    diffusers_logging.disable_progress_bar()
    by_role = {piece.role: piece for piece in pieces}
    pipeline, form = by_role["pipeline"], recipe.form
    schedule = read_stated(pieces, recipe).schedule
    network = _module(form.parts[form.network], by_role, form.network, getattr(torch, recipe.dtype), device)
    vae_dtype = decoder_dtype(_source(by_role, "vae")[0].parent, recipe)
    vae = _module(form.parts["vae"], by_role, "vae", vae_dtype)
    text = dict(_text_encoders(by_role, recipe))
    if "single_file" in by_role:
        trained = scheduler_of(schedule).alphas_cumprod
        check_training(by_role["single_file"].paths[0], schedule["prediction_type"], trained)
    if "lora" in by_role:
        from align.backbones.lora import merge

        encoders = {role: one.model for role, one in text.items()}
        merge(by_role["lora"].paths[0], {form.network: network, **encoders})
    zero_empty = recipe.layout == "sdxl" and bool(
        read_object(pipeline.folder / "model_index.json").get("force_zeros_for_empty_prompt", True)
    )
    with _contained():
        switch(network, recipe, device)
    placed = recipe.offload or (device.type == "cuda" and getattr(network, "hf_quantizer", None) is not None)
    return Modules(network, vae, tuple(text.values()), zero_empty, schedule, device, placed)


def decoder_dtype(vae: Path, recipe: Recipe) -> torch.dtype:
    """Numbers of the autoencoder in a folder: float16 only if asked for by name, or if its config allows it.

    ``force_upcast`` is read from the file: diffusers takes an absent one for true, yet Stable Diffusion's
    autoencoder, whose config is older than the key, works in float16.
    """
    if recipe.decoder_dtype is not None or recipe.dtype != "float16":
        named: torch.dtype = getattr(torch, recipe.decoder_dtype or recipe.dtype)
        return named
    overflows = read_object(vae / "config.json").get("force_upcast", False)
    return torch.float32 if overflows else torch.float16


def _source(pieces: dict[str, Piece], role: str) -> list[Path]:
    """Where a module comes from, its config first: a folder's files, or a file whose sizes the pipeline says."""
    inside = [path for path in pieces["pipeline"].paths if path.parent.name == role]
    if role not in pieces:
        return inside + (pieces["single_file"].paths if "single_file" in pieces else [])
    return (inside if is_file(pieces[role].reference) else []) + pieces[role].paths


def _module(
    part: Part,
    pieces: dict[str, Piece],
    role: str,
    dtype: torch.dtype,
    device: torch.device | None = None,
) -> Any:
    """``device`` is where quantised weights go, which cannot be moved later; without one they are refused."""
    config, *weights = _source(pieces, role)
    kind = getattr(diffusers, part.kind)
    known = {*signature(kind.__init__).parameters, "quantization_config"}
    stated = {key: value for key, value in read_object(config).items() if value not in (None, False)}
    if (name := stated.get("_class_name", part.kind)) not in (part.kind, part.former):
        raise ValueError(f"{config} is of {name}, not {kind.__name__}")
    if unknown := sorted(key for key in stated if key not in known and not key.startswith("_")):
        raise ValueError(
            f"{config} says {_few(unknown)}, which this diffusers' {kind.__name__} does not know: "
            "upgrade diffusers, or take it out if the network is the same without it"
        )
    if weights[0].parent == config.parent or not is_original(weights[0]):
        quantised = device is not None and stated.get("quantization_config") is not None
        placed = (
            {"device_map": {"": device}} if device is not None and quantised and device.type == "cuda" else {}
        )
        return _filled(kind, [config, *weights], quantised, torch_dtype=dtype, **placed)
    return _converted(load_network, kind, config, weights[0], dtype)


def _text_encoders(pieces: dict[str, Piece], recipe: Recipe) -> Iterator[tuple[str, TextEncoder]]:
    dtype = getattr(torch, recipe.text_dtype or recipe.dtype)
    there = {path.parent.name for path in pieces["pipeline"].paths}
    for role, part in recipe.form.encoders.items():
        if role not in there:
            continue
        config, *weights = _source(pieces, role)
        kind: Any = getattr(transformers, part.kind)
        if kind is CLIPTextModelWithProjection and read_object(config).get("architectures") == [
            "CLIPTextModel"
        ]:
            kind = CLIPTextModel
        if weights[0].parent == config.parent:
            # Sizes that differ are told by _filled: transformers' own error names no tensor.
            model = _filled(kind, [config, *weights], dtype=dtype, ignore_mismatched_sizes=True)
        else:
            model = _converted(load_text, kind, config, weights[0], dtype)
        folder = pieces["pipeline"].folder / tokenizer_of(role)
        yield role, TextEncoder(_tokenizer(folder, str(part.tokenizer)), model)


def _converted(
    read: Callable[[type[Module], Path, Path], Module],
    kind: type[Module],
    config: Path,
    file: Path,
    dtype: torch.dtype,
) -> Module:
    """A module from a file of the original layout. Raises ValueError, WrongWeights."""
    try:
        with _contained():
            return read(kind, config, file).to(dtype)
    except (MemoryError, WrongWeights):
        raise
    except Exception as error:  # as in _filled
        raise ValueError(f"{file} holds no {kind.__name__} as {config} says: {_first_line(error)}") from error


def _filled(kind: type[Module], files: Sequence[Path], quantised: bool = False, **options: Any) -> Module:
    """A model of diffusers or transformers, every tensor of which is in the files.

    Left to themselves the libraries warn at most and let random numbers stand for what is missing; tensors that
    no part of the model reads are left out.

    Args:
        kind: class of the model.
        files: its config, and its weights or their index and shards.
        quantised: whether they may be in a form that a package of its own reads.
        options: of ``from_pretrained``.

    Raises:
        OSError, ValueError: a file is damaged; or naming up to three tensors that are missing or of another shape.
    """
    folder = files[0].parent if files[1].parent == files[0].parent else files[1]
    if not quantised and read_object(files[0]).get("quantization_config") is not None:
        raise ValueError(
            f"{files[0]} says quantization_config: of a pipeline only the network may be quantised, give plain weights"
        )
    check_shards(entry(files[1:]))
    with _contained(), _alone(files, MODEL if issubclass(kind, ModelMixin) else "model") as seen:
        try:
            model: Module
            model, facts = kind.from_pretrained(  # type: ignore[attr-defined]
                seen, use_safetensors=True, local_files_only=True, output_loading_info=True, **options
            )
        except (MemoryError, RuntimeError):
            raise
        except Exception as error:  # of many classes; says much advice but not of which file
            why = _first_line(error).replace(str(seen), str(folder))
            raise ValueError(f"{folder} holds no {kind.__name__}: {why}") from error
    if wrong := sorted({*facts["missing_keys"], *(key for key, *_ in facts["mismatched_keys"])}):
        raise ValueError(
            f"{folder} does not fit {kind.__name__}: {len(wrong)} tensors missing or of another shape: {_few(wrong)}"
        )
    return model


@contextmanager
def _alone(files: Sequence[Path], stem: str) -> Iterator[Path]:
    """A folder in which a library that looks for weights named ``stem`` finds those of these files, and no others.

    What they read is then what was looked for and hashed, whatever lies beside it.
    """
    first = entry(files[1:])
    names = {first: f"{stem}{INDEX}.json" if INDEX in first.name else f"{stem}{SAFE}"}
    with TemporaryDirectory() as name:
        for file in files:
            (Path(name) / names.get(file, file.name)).symlink_to(file.resolve())
        yield Path(name)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].partition(". ")[0]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")


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


def _tokenizer(folder: Path, kind: str) -> PreTrainedTokenizerBase:
    try:
        found: PreTrainedTokenizerBase = getattr(transformers, kind).from_pretrained(
            folder, local_files_only=True
        )
        return found
    except Exception as error:  # the parser of vocabularies has no class of its own for what it refuses
        name = kind.removesuffix("Tokenizer")
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{folder} holds no {name} tokenizer: {first}") from error
