"""Which files a pipeline is made of in diffusers' layout, and which of several forms of a file is there.

Weights are one file or shards that an index names, in full or half precision.  Imports no torch.  Only safetensors
count: a ``.bin`` is a pickle and is not looked at.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from align.checkpoints.reference import HubReference, folder_of, hub_reference
from align.errors import WrongWeights
from align.reading import read_json

Layout = Literal["sd", "sdxl", "sd3", "flux", "z_image", "qwen_image", "flux2_klein", "sana", "pixart"]


class Part(NamedTuple):
    """A module of a pipeline: its class, and for a text encoder that of its tokenizer, of diffusers or transformers."""

    kind: str
    tokenizer: str | None = None
    optional: bool = False
    """A pipeline without it says so in its ``model_index.json``."""
    former: str | None = None
    """The class of older configs, which is the same."""
    published: tuple[str, ...] = ()
    """Files of the tokenizer in repositories of the hub, where those are not today's two."""


class Form(NamedTuple):
    """What a pipeline consists of: its class, and its modules by their names, the network first.

    ``patch`` is the side of a token in latents where latents are packed before the network is called.
    """

    pipeline: str
    parts: dict[str, Part]
    patch: int | None = None
    maps: bool = True
    """Whether attention maps are read from its network."""
    variances: bool = False
    """Whether the network predicts variances too, which are left."""

    @property
    def network(self) -> str:
        return next(iter(self.parts))

    @property
    def encoders(self) -> dict[str, Part]:
        return {name: part for name, part in self.parts.items() if part.tokenizer is not None}


_NEW = ("tokenizer.json", "tokenizer_config.json")
_OLDER = ("merges.txt", "special_tokens_map.json", "tokenizer_config.json", "vocab.json")
TEMPLATE = "chat_template.jinja"
"""How a chat model is spoken to, in the newest layout; in others that stands in ``tokenizer_config.json``."""
_AUTOENCODER = Part("AutoencoderKL")
_CLIP = Part("CLIPTextModel", "CLIPTokenizer", published=_OLDER)
_PROJECTED = _CLIP._replace(kind="CLIPTextModelWithProjection")
_T5 = Part("T5EncoderModel", "T5Tokenizer")
FORMS: dict[Layout, Form] = {
    "sd": Form(
        "StableDiffusionPipeline",
        {"unet": Part("UNet2DConditionModel"), "vae": _AUTOENCODER, "text_encoder": _CLIP},
    ),
    "sdxl": Form(
        "StableDiffusionXLPipeline",
        {
            "unet": Part("UNet2DConditionModel"),
            "vae": _AUTOENCODER,
            # Only the second encoder's pooled output is projected; of the first, hidden states alone are read.
            "text_encoder": _CLIP,
            "text_encoder_2": _PROJECTED,
        },
    ),
    "sd3": Form(
        "StableDiffusion3Pipeline",
        {
            "transformer": Part("SD3Transformer2DModel"),
            "vae": _AUTOENCODER,
            "text_encoder": _PROJECTED,
            "text_encoder_2": _PROJECTED._replace(optional=True),
            "text_encoder_3": _T5._replace(optional=True),
        },
    ),
    "flux": Form(
        "FluxPipeline",
        {
            "transformer": Part("FluxTransformer2DModel"),
            "vae": _AUTOENCODER,
            "text_encoder": _CLIP,
            "text_encoder_2": _T5,
        },
        patch=2,
    ),
    "z_image": Form(
        "ZImagePipeline",
        {
            "transformer": Part("ZImageTransformer2DModel"),
            "vae": _AUTOENCODER,
            "text_encoder": Part("Qwen3Model", "Qwen2Tokenizer"),
        },
        maps=False,
    ),
    "qwen_image": Form(
        "QwenImagePipeline",
        {
            "transformer": Part("QwenImageTransformer2DModel"),
            "vae": Part("AutoencoderKLQwenImage"),
            "text_encoder": Part("Qwen2_5_VLForConditionalGeneration", "Qwen2Tokenizer", published=_OLDER),
        },
        patch=2,
        maps=False,
    ),
    "flux2_klein": Form(
        "Flux2KleinPipeline",
        {
            "transformer": Part("Flux2Transformer2DModel"),
            "vae": Part("AutoencoderKLFlux2"),
            "text_encoder": Part("Qwen3ForCausalLM", "Qwen2Tokenizer", published=(TEMPLATE, *_NEW)),
        },
        patch=2,
    ),
    "sana": Form(
        "SanaPipeline",
        {
            "transformer": Part("SanaTransformer2DModel"),
            "vae": Part("AutoencoderDC"),
            "text_encoder": Part("Gemma2Model", "GemmaTokenizer"),
        },
    ),
    "pixart": Form(
        "PixArtSigmaPipeline",
        {
            "transformer": Part("PixArtTransformer2DModel", former="Transformer2DModel"),
            "vae": _AUTOENCODER,
            "text_encoder": _T5._replace(published=("spiece.model", "tokenizer_config.json")),
        },
        variances=True,
    ),
}
"""Pipelines that are read, by ``backbone.layout``; what each does in its own way is in ``align/backbones/families``."""

HALF_FILES = frozenset(
    {
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "stabilityai/stable-diffusion-xl-base-1.0",
        "stabilityai/sd-turbo",
        "stabilityai/sdxl-turbo",
    }
)
"""Repositories that are known to hold ``*.fp16.safetensors`` beside the full files, at half the download."""

GATED = frozenset(
    {
        *(f"stabilityai/stable-diffusion-3.5-{size}" for size in ("medium", "large", "large-turbo")),
        *(f"black-forest-labs/FLUX.1-{kind}" for kind in ("dev", "schnell")),
    }
)
"""Repositories that are known to ask for a licence to be accepted, so that it is told before anything is fetched."""

MODEL = "diffusion_pytorch_model"
"""Stem of diffusers' weight files; transformers' is ``model``."""

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
    name, ending, form = json.dumps(path), Path(path).suffix, FORMS[layout]
    if ending in PICKLES and role in (form.network, "vae", "lora"):
        target = json.dumps(path.removesuffix(ending) + SAFE)
        code = f"import torch, safetensors.torch as s; s.save_file(torch.load({name}, weights_only=True), {target})"
    else:
        kind = form.parts[role].kind if role in form.parts else form.pipeline
        how = "from_single_file" if ending in (SAFE, *PICKLES) else "from_pretrained"
        code = f'from diffusers import {kind} as P; P.{how}({name}).save_pretrained("converted")'
    return f"python -c {shlex.quote(code)}"


def pipeline_piece(
    reference: str,
    layout: Layout,
    half: frozenset[str],
    swaps: dict[str, str],
    single: bool = False,
    without: Collection[str] = (),
) -> Piece:
    """A whole pipeline, by embedded name, folder or repository.

    Half files will do for the roles (the network, ``vae``, ``text``) in ``half``, which compute in 16 bit; ``swaps`` are
    references that modules come from instead, with ``single`` all others come from one file elsewhere; ``without`` are
    optional modules to leave out, beside those that its ``model_index.json`` does not have.
    """
    form, folder = FORMS[layout], folder_of(reference)
    files: list[str] = ["scheduler/scheduler_config.json"]
    # Says whether the empty prompt is zeros, and which modules there are.
    files += ["model_index.json"] if layout != "sd" else []
    absent = {*without, *missing_parts(folder, layout)}
    for module in (form.network, "vae"):
        if module not in swaps and not single:
            files += _weights(reference, module, MODEL, module in half)
        elif is_file(swaps.get(module, SAFE)):
            files.append(f"{module}/config.json")  # a file alone does not say its sizes
    for module, part in form.encoders.items():
        if part.optional and module in absent:
            continue
        files += [f"{module}/config.json"] if single else _weights(reference, module, "model", "text" in half)
        files += _tokenizer(reference, tokenizer_of(module), part)
    return Piece("pipeline", reference, folder, tuple(sorted(files)))


def tokenizer_of(encoder: str) -> str:
    """The sub-folder of a text encoder's tokenizer."""
    return encoder.replace("text_encoder", "tokenizer")


def missing_parts(folder: Path, layout: Layout) -> list[str]:
    """Optional modules that the pipeline in a folder does not have, by its ``model_index.json`` if that is there."""
    optional = [name for name, part in FORMS[layout].parts.items() if part.optional]
    path = folder / "model_index.json"
    if not optional or not path.is_file():
        return []
    try:
        index = read_json(path)
        return [name for name in optional if index.get(name) in (None, [None, None])]
    except (ValueError, AttributeError):
        return []  # told when it is read


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


_TOKENIZERS = {
    "CLIPTokenizer": ("merges.txt", "vocab.json"),
    "GemmaTokenizer": ("tokenizer.model",),
    "Qwen2Tokenizer": ("merges.txt", "vocab.json"),
    "T5Tokenizer": ("spiece.model",),
}
"""Files of a vocabulary in the layout of the older repositories, by class."""


def _tokenizer(reference: str, module: str, part: Part) -> list[str]:
    """One file in today's layout, vocabulary and merges (or a SentencePiece model) in that of the older repositories."""
    bare = (*_TOKENIZERS[str(part.tokenizer)], "tokenizer_config.json")
    old = (*bare, "special_tokens_map.json")
    wanted = part.published if part.published and hub_reference(reference) is not None else _NEW
    folder = folder_of(reference) / module
    forms = ((TEMPLATE, *_NEW), _NEW, old, bare)
    return _within(
        module, next((form for form in forms if all((folder / name).is_file() for name in form)), wanted)
    )


def _within(module: str, names: Sequence[str]) -> list[str]:
    return [f"{module}/{name}" if module else name for name in names]
