"""Memory of a network on its device, by calculation from its files: sums of what is kept, not a measured peak.

Weights are counted in the headers of their files.  Of a block, the way back keeps about so many rows of the network's width for
each token; a decoder so many maps for each residual layer.  Imports no torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.checkpoints.layout import SAFE
from align.checkpoints.needed import Needed
from align.checkpoints.reference import EMBEDDED
from align.config.schema import BackboneConfig, Config
from align.config.strategy import KEPT_STEPS, ORDERS_TOGETHER
from align.errors import WrongWeights
from align.reading import read_json
from align.rewards.registry import REWARDS
from align.runner.devices import gb_of, torch_device
from align.runner.files import Files

JOINT, SINGLE, SECOND = 16, 12, 10
"""What a block keeps for each token, in its width: of two streams, of one, and beside it of a second attention among image tokens."""
CONVOLVED, ATTENDED = 14, 19
"""Likewise of a UNet a residual layer, and a block of attention."""
CHANNELS, ORDERED = 4, 20
"""Of a UNet's latents, and the bytes of an entry in an order of DNO's penalty: its index, itself, copies and a gradient."""
RESIDUAL, RECOMPUTED = 8, 2
"""Likewise a decoder's residual layer for each place, in its width, and where it is computed again."""
LIVE = 4
"""Maps that a decoder holds at once where nothing is kept."""
USUAL = (128, 256, 512, 512)
"""Widths of a decoder whose config does not say them in the usual way."""
HEADER = 100_000_000
"""Bytes, more than a header may have."""
ROOM = 12.0
"""GB beside weights for what works with them, where it is asked whether several models fit on a device together."""
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
TEXT, CLIP_TEXT = {"sd3": 256}, {"sd3": 77}
"""Tokens of a text where ``backbone.max_sequence_length`` does not say (else 512), and of CLIP's beside them."""


@dataclass(frozen=True)
class Memory:
    """In GB, of 10^9 bytes.

    Attributes:
        weights: of network and autoencoder.
        encoders: of text encoders, which are there while prompts are read only.
        row: of what a picture's evaluation keeps, in halves.
    """

    weights: float
    encoders: float
    row: float


@dataclass(frozen=True)
class Part:
    """A module: what its config states, and its files of weights."""

    stated: Mapping[str, Any]
    weights: Sequence[Path]


def predicted(files: Files) -> Memory:
    """Of a configuration with a network whose files are all there. Raises WrongWeights: a file is damaged."""
    config, backbone = files.config, files.config.backbone
    network, decoder = part(files, files.recipe.form.network), part(files, "vae")
    encoders = [part(files, role) for role in files.recipe.form.encoders]
    numbers, text = BYTES[backbone.dtype], BYTES[backbone.text_dtype or backbone.dtype]
    maps = BYTES[backbone.decoder_dtype or backbone.dtype]
    size = 1 if backbone.storage else numbers
    if backbone.storage and config.method.differentiates and not backbone.checkpointing:
        size += numbers  # until a gradient has come back, weights are there as they were computed with too
    own: float = counted(network.weights) * size
    if network.stated.get("quantization_config") is not None:
        own = sum(path.stat().st_size for path in network.weights)
    if backbone.offload:
        own = 2 * own / blocks(network.stated)  # one at work, one on its way
    side = files.stated.side
    tokens = backbone.height // side * (backbone.width // side), text_tokens(backbone)
    pixels = backbone.height * backbone.width
    if backbone.kind == "unet":
        kept, block = numbers * kept_by_unet(network.stated, tokens[0]), 0.0
    else:
        kept = numbers * kept_by_network(network.stated, *tokens)
        block = kept / blocks(network.stated)
    halves = 2 if config.reads_negative and not config.one_half else 1
    calls = halves + config.guider.further_pass
    if config.method.follows_noise:
        again = config.sampler.steps > KEPT_STEPS
        decoded = maps * pixels * kept_by_decoder(decoder.stated)
        # Where calls are made again, the decoder's graph is gone before the first of them is.
        row = max(calls * kept, decoded) if again else config.sampler.steps * calls * kept + decoded
        row += penalty_bytes(config, files.stated.side)
    elif not config.method.guided:
        row = max(halves * block, maps * LIVE * pixels * max(widths(decoder.stated)[:2]))
    elif backbone.checkpointing:
        entries = numbers * sum(tokens) * width(network.stated) * blocks(network.stated)
        row = calls * entries + halves * block + maps * pixels * kept_by_decoder(decoder.stated, RECOMPUTED)
    else:
        row = calls * kept + maps * pixels * kept_by_decoder(decoder.stated)
    resting = text * sum(counted(one.weights) for one in encoders)
    return Memory((own + maps * counted(decoder.weights)) / 1e9, resting / 1e9, row / 1e9)


def memory_line(files: Files) -> str:
    """The prediction in words, of models where memory is a question; empty for others. Raises WrongWeights."""
    backbone = files.config.backbone
    if backbone.kind == "analytic" or backbone.weights in EMBEDDED:
        return ""
    if backbone.kind == "unet" and not files.config.method.follows_noise:
        return ""
    found = predicted(files)
    told = (
        f"{found.weights:.1f} GB of weights, {found.row:.1f} GB a row, text encoders {found.encoders:.1f} GB while prompts are "
        "read: by calculation, rewards aside"
    )
    device = torch_device(files.config.run.device)
    if device.type == "cuda" and found.weights + max(found.encoders, found.row) > gb_of(device):
        less = "backbone.storage=float8, .checkpointing=true and .offload=true take less"
        if files.config.method.follows_noise:
            less = "backbone.checkpointing=true takes less"
        told += f"; more than the {gb_of(device):.0f} GB of {device}: {less}"
    return told


def waiting(files: Files, beside: Sequence[Needed]) -> frozenset[str]:
    """Metrics that a CUDA device has no room for ``beside`` other models and each other: they measure last, one after another.

    By the sizes of files, for those judges whose numbers are as short in memory as they are there.
    """
    device, metrics = torch_device(files.config.run.device), files.config.metrics.rewards
    large = [name for name in metrics if REWARDS[name].dtype != "float32" and name not in files.guiding]
    if device.type != "cuda" or not large or (len(metrics) == 1 and not beside):
        return frozenset()
    paths = {path for one in (*beside, *files.measuring) for path in one.files()}
    fits = sum(path.stat().st_size for path in paths) / 1e9 + ROOM <= gb_of(device)
    return frozenset() if fits else frozenset(large)


def part(files: Files, role: str) -> Part:
    """A module of a pipeline, or what is used instead of it; an optional one that is left out has no weights."""
    inside = [path for path in files.pieces[0].paths if path.parent.name == role]
    found = inside + [path for one in files.pieces[1:] if one.role == role for path in one.paths]
    configs = [path for path in found if path.name == "config.json"]
    stated = read_json(configs[-1]) if configs else {}
    return Part(stated, [path for path in found if path.suffix == SAFE])


def counted(paths: Sequence[Path]) -> int:
    """How many numbers files of weights hold, by their headers. Raises WrongWeights."""
    total = 0
    for path in paths:
        try:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(min(length, HEADER)))
            total += sum(math.prod(one["shape"]) for name, one in header.items() if name != "__metadata__")
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise WrongWeights(f"{path} is not a readable safetensors file: {error}") from None
    return total


def text_tokens(backbone: BackboneConfig) -> int:
    """Of a text, filled up."""
    layout = backbone.layout
    return (backbone.max_sequence_length or TEXT.get(layout, 512)) + CLIP_TEXT.get(layout, 0)


def width(network: Mapping[str, Any]) -> int:
    """Of a token in a transformer, by its config."""
    heads = network.get("num_attention_heads", 1) * network.get("attention_head_dim", 1)
    return int(network.get("dim") or network.get("hidden_size") or heads)


def blocks(network: Mapping[str, Any]) -> int:
    """Of a transformer, of both kinds."""
    found = sum(network.get(key) or 0 for key in ("num_layers", "n_layers", "num_single_layers"))
    return max(1, found)


def kept_by_network(network: Mapping[str, Any], image: int, text: int) -> int:
    """Numbers that the way back of a row keeps, of so many tokens."""
    single, second = network.get("num_single_layers") or 0, len(network.get("dual_attention_layers") or ())
    units = ((blocks(network) - single) * JOINT + single * SINGLE) * (image + text) + second * SECOND * image
    return units * width(network)


def kept_by_unet(network: Mapping[str, Any], places: int) -> float:
    """Numbers that the way back of a row keeps, of so many places in its latents."""
    levels, layers = network["block_out_channels"], network.get("layers_per_block") or 2
    depths = network.get("transformer_layers_per_block") or 1
    depths = [depths] * len(levels) if isinstance(depths, int) else list(depths)
    attends = ["CrossAttn" in kind for kind in network["down_block_types"]]
    total = 0.0
    for level, (channels, depth) in enumerate(zip(levels, depths, strict=True)):
        lowest = level == len(levels) - 1  # which has the middle too
        residual = 2 * layers + 1 + 2 * lowest
        attention = depth * ((2 * layers + 1) * attends[level] + lowest)
        total += (CONVOLVED * residual + ATTENDED * attention) * channels * places / 4**level
    return total


def penalty_bytes(config: Config, side: int) -> float:
    """Of DNO's penalty on a picture's noise."""
    options, backbone = config.method.noise_gradient, config.backbone
    if options.penalty != "gaussian" or options.weight == 0:
        return 0.0
    draws = (
        1 if options.over == "start" else config.sampler.steps + 1 if options.last is None else options.last
    )
    entries = CHANNELS * (backbone.height // side) * (backbone.width // side)
    return ORDERED * min(options.permutations, ORDERS_TOGETHER) * draws * entries


def widths(decoder: Mapping[str, Any]) -> list[int]:
    """Of a decoder's maps, the finest first."""
    found = decoder.get("decoder_block_out_channels") or decoder.get("block_out_channels")
    return list(found or USUAL)


def kept_by_decoder(decoder: Mapping[str, Any], each: int = RESIDUAL) -> float:
    """Likewise of a decoder, for each pixel."""
    layers, found = int(decoder.get("layers_per_block") or 2) + 1, widths(decoder)
    units: float = sum(layers * one / 4**level for level, one in enumerate(found)) + 2 * found[-1] / 4 ** (
        len(found) - 1
    )
    return each * units
