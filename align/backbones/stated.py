"""What the JSON files of a backbone state, read and checked before anything is loaded.  Imports no torch.

A key that asks for something that is not done here (channels of a picture to be painted in, class labels, another training
process) is refused, naming file, key and mend: left to itself it would show in every single picture, if at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.checkpoints.layout import is_file
from align.processes.schedule import is_number, read_schedule, unread
from align.reading import parse_object, read_bytes

if TYPE_CHECKING:
    from align.backbones.recipe import Recipe
    from align.checkpoints.layout import Piece

SHIFTS = ("latents_mean", "latents_std", "shift_factor")
"""What an autoencoder may state of its latents beside a ``scaling_factor``."""
_FED = {
    "class_embed_type": "class labels",
    "num_class_embeds": "class labels",
    "encoder_hid_dim_type": "pictures or another encoder's states",
}
"""Inputs of a network beside latents, time and text, none of which is fed."""


@dataclass(frozen=True)
class Stated:
    """What counts of it.

    Attributes:
        schedule: see ``read_schedule``.
        path: of the scheduler file.
        unread: what that says of its own solver's steps.
        strides: how many times coarser than the latents cross-attention layers may be.
        side: of the smallest part of a picture, in pixels.
        largest: sides that a network's table of positions is good for, in pixels; ``None`` for any.
        blocks: how many layers of joint attention a transformer has.
        shifts: which of ``SHIFTS`` the autoencoder states.
        network: the network's config.
    """

    schedule: dict[str, Any]
    path: Path
    unread: list[str]
    strides: frozenset[int]
    shifts: tuple[str, ...]
    network: dict[str, Any]
    side: int = 8
    largest: int | None = None
    blocks: int = 0


def read_stated(pieces: Sequence[Piece], recipe: Recipe) -> Stated:
    """Read and check the files of ``align.backbones.registry.pieces``.

    Raises:
        OSError: a file cannot be read.
        ValueError: what is wrong, in which file.
    """
    # A file of weights alone does not say its sizes: the pipeline's config does.
    folders = {piece.role: piece.folder for piece in pieces if not is_file(piece.reference)}
    pipeline = folders["pipeline"]
    path = pipeline / "scheduler/scheduler_config.json"
    form = recipe.form
    network_path, vae = (folders.get(role, pipeline / role) / "config.json" for role in (form.network, "vae"))
    process, network, autoencoder = (read_object(one) for one in (path, network_path, vae))
    with _named(path):
        schedule = read_schedule(process)
    with _named(vae):
        channels = check_latents(autoencoder)
        if (shown := autoencoder.get("out_channels", 3)) != 3:
            raise ValueError(f"out_channels={shown} make no picture: give an autoencoder of 3")
    factor = compression(autoencoder)
    shifts = tuple(key for key in SHIFTS if autoencoder.get(key) not in (None, 0))
    found = Stated(schedule, path, unread(process), frozenset(), shifts, network, factor)
    with _named(network_path):
        if form.network == "transformer":
            return replace(found, **read_transformer(network, recipe, channels, factor))
        texts = [_sizes(pipeline / role / "config.json") for role in form.encoders]
        _check_network(network, recipe, channels, texts)
    return replace(found, strides=attention_strides(network))


def read_transformer(
    network: Mapping[str, Any], recipe: Recipe, channels: int, factor: int
) -> dict[str, Any]:
    """What counts of a transformer's config, as ``Stated`` has it; of its inputs and outputs those that name another task are
    refused. Raises ValueError.
    """
    embeds = network.get("guidance_embeds")
    if embeds is not None and bool(embeds) != (recipe.guidance == "embedded"):
        raise ValueError(
            f"guidance_embeds={str(embeds).lower()} is not of backbone.guidance={recipe.guidance}: "
            f"give {'embedded' if embeds else 'none'}"
        )
    packed = recipe.form.patch
    inside = (packed or 1) ** 2 * channels
    outside = (inside, channels, *((2 * channels,) if recipe.form.variances else ()))
    for key, right in (("in_channels", (inside,)), ("out_channels", outside)):
        if network.get(key) not in (None, *right):
            raise ValueError(
                f"{key}={network[key]}, and latents have {channels} channels (vae/config.json): it is a network of another "
                "task, such as editing, or for other latents; give one that draws from text alone"
            )
    patch = packed or _whole(network, "patch_size", 2)
    table = network.get("pos_embed_max_size")
    return {
        "side": patch * factor,
        "largest": table * patch * factor if isinstance(table, int) else None,
        "blocks": sum(network.get(key, 0) for key in ("num_layers", "num_single_layers")),
    }


def check_latents(autoencoder: Mapping[str, Any]) -> int:
    """The channels of the latents that an autoencoder's config is of, if what it states of their scale makes sense.

    Raises:
        ValueError: naming the key.
    """
    channels = _whole(autoencoder, "z_dim" if "z_dim" in autoencoder else "latent_channels", 4)
    for key in ("scaling_factor", "shift_factor"):
        value = autoencoder.get(key, 1.0)
        if key == "shift_factor" and value is None:
            continue
        if not is_number(value) or (key == "scaling_factor" and value == 0):
            shown = "null" if value is None else value
            raise ValueError(f"{key}={shown} is no number that latents can be scaled by: give one")
    for key in ("latents_mean", "latents_std"):
        values = autoencoder.get(key)
        if values is None:
            continue
        if not (
            isinstance(values, list) and len(values) == channels and all(is_number(one) for one in values)
        ):
            raise ValueError(
                f"{key} is no list of {channels} numbers, one for each channel: give one, or null"
            )
        if key == "latents_std" and min(values) <= 0:
            raise ValueError("latents_std has a number that is not above 0: give deviations, or null")
    return channels


def compression(autoencoder: Mapping[str, Any]) -> int:
    """The side of a latent in pixels, by an autoencoder's config."""
    if "temperal_downsample" in autoencoder:
        return int(2 ** len(autoencoder["temperal_downsample"]))
    levels = autoencoder.get("encoder_block_out_channels") or autoencoder.get("block_out_channels", [0] * 4)
    return int(2 ** (len(levels) - 1))


def check_small_decoder(config: Path, backbone: Stated) -> None:
    """Refuse a small decoder, by its ``config.json``, that knows nothing of the shift of the backbone's latents.

    Published ones were distilled for latents that are only scaled.

    Raises:
        OSError: the file cannot be read.
        ValueError: naming file and key.
    """
    small = read_object(config)
    with _named(config):
        check_latents(small)
        if backbone.shifts and not any(key in small for key in ("latents_mean", "latents_std")):
            raise ValueError(
                f"the backbone's autoencoder states {backbone.shifts[0]} and this decoder states none, so it is for other "
                "latents: give method.value.estimate=posterior, or state there the latents_mean and latents_std that it takes"
            )


def attention_strides(network: Mapping[str, Any]) -> frozenset[int]:
    """How many times coarser than the latents the blocks of a UNet with cross-attention are, by its config."""
    down, up = network.get("down_block_types", ()), network.get("up_block_types", ())
    last = max(len(down) - 1, 0)
    kinds = [*enumerate(down), *((last - k, kind) for k, kind in enumerate(up))]
    kinds.append((last, network.get("mid_block_type", "UNetMidBlock2DCrossAttn")))
    return frozenset(
        2**level for level, kind in kinds if "CrossAttn" in str(kind) and "Simple" not in str(kind)
    )


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises OSError, ValueError."""
    return parse_object(read_bytes(path), path)


def _check_network(
    network: Mapping[str, Any], recipe: Recipe, channels: int, texts: Sequence[Mapping[str, int]]
) -> None:
    """Refuse a network of another layout, of the other way of guidance, or of other inputs or outputs."""
    kind = network.get("addition_embed_type")
    if kind != {"sd": None, "sdxl": "text_time"}[recipe.layout]:
        raise ValueError(f"addition_embed_type={kind} is not of backbone.layout={recipe.layout}")
    scale = network.get("time_cond_proj_dim")
    if (scale is not None) != recipe.consistency:
        given = str(recipe.consistency).lower()
        raise ValueError(f"time_cond_proj_dim={scale} is not of backbone.consistency={given}")
    for key, what in _FED.items():
        if network.get(key) is not None:
            raise ValueError(
                f"{key}={network[key]} is of a network that reads {what}: give one that reads text alone"
            )
    for key in ("in_channels", "out_channels"):
        if (found := network.get(key, 4)) != channels:
            raise ValueError(
                f"{key}={found}, and latents have {channels} channels (vae/config.json): it is a network of another task, "
                "such as inpainting, or for other latents; give one that draws from text alone"
            )
    for key in ("down_block_types", "up_block_types"):
        if not isinstance(network.get(key, []), list):
            raise ValueError(f"{key} is no list of the network's blocks: give one")
    width = sum(text["hidden_size"] for text in texts)
    reads = network.get("cross_attention_dim")
    if isinstance(reads, int) and reads != width:
        raise ValueError(
            f"cross_attention_dim={reads}, and the text encoders give {width}: give a network for these encoders"
        )
    added, each = network.get("projection_class_embeddings_input_dim"), network.get("addition_time_embed_dim")
    pooled = texts[-1]["projection_dim"]
    if isinstance(added, int) and isinstance(each, int) and kind is not None and added != pooled + 6 * each:
        raise ValueError(
            f"projection_class_embeddings_input_dim={added} is not {pooled} of text and 6 x {each} of sizes, as SDXL's base "
            "model reads: a refiner or the like does not draw from text alone"
        )


def _sizes(path: Path) -> dict[str, int]:
    """The widths that a text encoder's config states. Raises OSError, ValueError."""
    text = read_object(path)
    with _named(path):
        return {key: _whole(text, key, 512) for key in ("hidden_size", "projection_dim")}


def _whole(stated: Mapping[str, Any], key: str, default: int) -> int:
    value = stated.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{key}={value!r} is no whole number from 1: give one")
    return value


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
