"""Which files a pipeline is made of in diffusers' layout, and which of several forms of a file is there.

Weights are one file or shards that an index names, in full or half precision.  Imports no torch.  Only safetensors
count: a ``.bin`` is a pickle and is not looked at.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from align.checkpoints.reference import HubReference, folder_of, hub_reference
from align.errors import WrongWeights
from align.reading import read_json

Layout = Literal["sd", "sdxl"]
"""Stable Diffusion's one text encoder, or Stable Diffusion XL's two."""

HALF_FILES = frozenset(
    {"stable-diffusion-v1-5/stable-diffusion-v1-5", "stabilityai/stable-diffusion-xl-base-1.0"}
)
"""Repositories that are known to hold ``*.fp16.safetensors`` beside the full files, at half the download."""

MODEL = "diffusion_pytorch_model"
"""Stem of diffusers' weight files; transformers' is ``model``."""

_PIPELINES = {"sd": "StableDiffusionPipeline", "sdxl": "StableDiffusionXLPipeline"}

PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
SAFE = ".safetensors"
INDEX = ".safetensors.index"
HALF = ("fp16", "bf16")
"""What the names of files in half precision have before their ending."""

ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
"""Files of a LoRA that peft saved: the second says how the first is scaled."""


@dataclass(frozen=True)
class Piece:
    """The files that one reference gives a model; ``role`` is ``pipeline`` or the part of it that they stand in for."""

    role: str
    reference: str
    folder: Path
    files: tuple[str, ...]

    @property
    def hub(self) -> HubReference | None:
        """Repository and folder within it that the files are relative to; ``None`` if they are local."""
        found = hub_reference(self.reference)
        if found is None or not is_file(self.reference):
            return found
        parent = str(PurePosixPath(found.folder).parent)
        return replace(found, folder="" if parent == "." else parent)

    @property
    def paths(self) -> list[Path]:
        return [self.folder / name for name in self.files]

    def complete(self) -> bool:
        return all(path.is_file() for path in self.paths)


def is_file(reference: str) -> bool:
    """Whether a reference means one file of weights rather than a folder."""
    return reference.endswith(SAFE)


def convert_command(path: str, role: str, layout: Layout) -> str:
    """What makes safetensors in diffusers' layout of a checkpoint in another form; pickles are read as plain tensors."""
    name, ending = json.dumps(path), Path(path).suffix
    if ending in PICKLES and role in ("unet", "vae", "lora"):
        target = json.dumps(path.removesuffix(ending) + SAFE)
        code = f"import torch, safetensors.torch as s; s.save_file(torch.load({name}, weights_only=True), {target})"
    else:
        kind = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}.get(role, _PIPELINES[layout])
        how = "from_single_file" if ending in (SAFE, *PICKLES) else "from_pretrained"
        code = f'from diffusers import {kind} as P; P.{how}({name}).save_pretrained("converted")'
    return f"python -c {shlex.quote(code)}"


def pipeline_piece(
    reference: str, layout: Layout, half: frozenset[str], swaps: dict[str, str], single: bool = False
) -> Piece:
    """A whole pipeline, by embedded name, folder or repository.

    Half files will do for the roles (``unet``, ``vae``, ``text``) in ``half``, which compute in 16 bit; ``swaps`` are references
    that modules come from instead, with ``single`` all others come from one file elsewhere.
    """
    encoders = ("",) if layout == "sd" else ("", "_2")
    files: list[str] = ["scheduler/scheduler_config.json"]
    # Says whether the empty prompt is zeros.
    files += ["model_index.json"] if layout == "sdxl" else []
    for module in ("unet", "vae"):
        if module not in swaps and not single:
            files += _weights(reference, module, MODEL, module in half)
        elif is_file(swaps.get(module, SAFE)):
            files.append(f"{module}/config.json")  # a file alone does not say its sizes
    for number in encoders:
        module = f"text_encoder{number}"
        files += [f"{module}/config.json"] if single else _weights(reference, module, "model", "text" in half)
        files += _tokenizer(reference, f"tokenizer{number}")
    return Piece("pipeline", reference, folder_of(reference), tuple(sorted(files)))


def module_piece(reference: str, role: str, half: bool) -> Piece:
    """A UNet or autoencoder that is used instead of the pipeline's own."""
    if is_file(reference):
        return file_piece(reference, role)
    files = _weights(reference, "", MODEL, half)
    return Piece(role, reference, folder_of(reference), tuple(files))


def file_piece(reference: str, role: str) -> Piece:
    """One file of weights: a module, all modules, or low-rank updates, which peft describes in a second one."""
    path = folder_of(reference)
    more = (ADAPTER_CONFIG,) if role == "lora" and path.name == ADAPTER else ()
    return Piece(role, reference, path.parent, (path.name, *more))


def weight_names(name: str, half: bool = False) -> Iterator[str]:
    """Under which names the weights ``name`` (``STEM.safetensors``) may be there, the best first.

    Half precision is read for full where there is nothing else; a name with ``.index`` lists shards.
    """
    stem = name.removesuffix(SAFE)
    for variant in (*HALF[:1], "", *HALF[1:]) if half else ("", *HALF):
        mark = variant and f".{variant}"
        yield f"{stem}{mark}{SAFE}"
        yield f"{stem}{INDEX}{mark}.json"


def weight_files(folder: Path, name: str, half: bool = False, wanted: str = "") -> tuple[str, ...]:
    """The files of the weights ``name`` (``STEM.safetensors``) in a folder: of the forms that are there, the
    first complete one.

    With ``half`` those of half precision go first.  ``wanted`` is what to ask for if none is there, by default
    ``name``. Raises WrongWeights: an index does not name shards.
    """
    there = [one for one in weight_names(name, half) if (folder / one).is_file()]
    forms = [(one,) if one.endswith(SAFE) else (one, *shards(folder / one)) for one in there]
    whole = [form for form in forms if all((folder / one).is_file() for one in form)]
    return next(iter(whole or forms), (wanted or name,))


def shards(index: Path) -> tuple[str, ...]:
    """The files beside an index that it names, sorted. Raises WrongWeights: it is no index, or names a file elsewhere."""
    return tuple(sorted(set(weight_map(index).values())))


def weight_map(index: Path) -> dict[str, str]:
    """The shard of each tensor, by an index. Raises WrongWeights, as ``shards`` does."""
    try:
        content = read_json(index)
        found: dict[str, str] = content["weight_map"]
        names = list(found.values())
        if not names or not isinstance(content["metadata"], dict):
            raise ValueError("it names nothing")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WrongWeights(
            f"{index} is no index of shards (weight_map and metadata): {error}; fetch or save it again"
        ) from None
    for name in names:
        if not isinstance(name, str) or not name.endswith(SAFE) or PurePosixPath(name).name != name:
            raise WrongWeights(f"{index} names {name!r}, which is no safetensors file beside it: refused")
    return found


def entry(files: Sequence[Path]) -> Path:
    """Of the files of some weights the one to begin with: the index of shards, or the only one."""
    return next((path for path in files if INDEX in path.name), files[0])


def check_shards(path: Path) -> None:
    """Refuse an index whose shards are damaged or hold other tensors than it says. Raises WrongWeights."""
    if INDEX not in path.name:
        return
    from safetensors import SafetensorError, safe_open

    said = weight_map(path)
    for shard in shards(path):
        try:
            with safe_open(path.parent / shard, framework="np") as file:
                held = set(file.keys())
        except (SafetensorError, OSError) as error:
            raise WrongWeights(f"{path.parent / shard} is damaged: {error}; fetch or save it again") from None
        if odd := sorted(held ^ {name for name, place in said.items() if place == shard}):
            what = "holds beside what" if odd[0] in held else "lacks of what"
            raise WrongWeights(f"{path.parent / shard} {what} {path.name} says: {', '.join(odd[:3])}")


def _weights(reference: str, module: str, stem: str, half: bool) -> list[str]:
    hub = hub_reference(reference)
    small = half and hub is not None and hub.repo in HALF_FILES
    wanted = next(weight_names(f"{stem}{SAFE}", small))
    folder = folder_of(reference) / module
    files = weight_files(folder, f"{stem}{SAFE}", half, wanted)
    full = not any(f".{mark}." in name for name in files for mark in HALF)
    if not (half or full) and hub is not None and hub.repo in HALF_FILES:
        files = (wanted,)  # the full file is known to exist: what a cache happens to hold does not decide
    return _within(module, ("config.json", *files))


def _tokenizer(reference: str, module: str) -> list[str]:
    """One file in today's layout, vocabulary and merges in that of the older repositories."""
    new = ("tokenizer.json", "tokenizer_config.json")
    old = ("merges.txt", "special_tokens_map.json", "tokenizer_config.json", "vocab.json")
    bare = ("merges.txt", "tokenizer_config.json", "vocab.json")
    wanted = new if hub_reference(reference) is None else old
    folder = folder_of(reference) / module
    forms = (new, old, bare)
    return _within(
        module, next((form for form in forms if all((folder / name).is_file() for name in form)), wanted)
    )


def _within(module: str, names: Sequence[str]) -> list[str]:
    return [f"{module}/{name}" if module else name for name in names]
