"""Reading cross-attention maps out of a diffusers UNet.

Only layers of the asked-for resolution compute explicit probabilities, and only while the probe is open; all
others, and all calls without a probe, keep diffusers' fused attention.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor


class Recorder:
    """Attention processor with explicit probabilities that reports its head-averaged maps.

    Args:
        report: told the maps of every call, (batch, cells, tokens) float32 with rows summing to 1.
    """

    def __init__(self, report: Callable[[Tensor], None]) -> None:
        self.report = report

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """As diffusers' own processors: hidden states (batch, cells, width) attend to the text's."""
        assert encoder_hidden_states is not None
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key = attn.head_to_batch_dim(attn.to_k(encoder_hidden_states))
        value = attn.head_to_batch_dim(attn.to_v(encoder_hidden_states))
        probabilities = torch.softmax((query @ key.transpose(1, 2)).float() * attn.scale, dim=-1)
        self.report(probabilities.unflatten(0, (hidden_states.shape[0], -1)).mean(dim=1))
        out = attn.batch_to_head_dim(probabilities.to(value.dtype) @ value)
        return attn.to_out[1](attn.to_out[0](out))


class AttentionProbe:
    """Sum of the maps of one forward call: ``mean()`` is (batch, cells, tokens) float32.

    Args:
        columns: indices (batch, K) of the tokens to keep for each row; ``None`` for all.
    """

    def __init__(self, columns: Tensor | None = None) -> None:
        self.columns = columns
        self.total: Tensor | None = None
        self.layers = 0

    def add(self, maps: Tensor) -> None:
        """Add one layer's maps, (batch, cells, tokens)."""
        if self.columns is not None:
            maps = maps.gather(2, self.columns[:, None].expand(-1, maps.shape[1], -1))
        self.total = maps if self.total is None else self.total + maps
        self.layers += 1

    def mean(self) -> Tensor:
        """Average over the layers seen.

        Raises:
            RuntimeError: no layer has the resolution that was asked for.
        """
        if self.total is None:
            raise RuntimeError("no cross-attention layer has the resolution asked for")
        return self.total / self.layers


def cross_attention_layers(unet: UNet2DConditionModel) -> dict[str, Attention]:
    """All cross-attention layers by name, each with its resolution relative to the latents as ``stride``."""
    return {
        name: module
        for name, module in unet.named_modules()
        if isinstance(module, Attention) and name.endswith("attn2")
    }


def layer_stride(unet: UNet2DConditionModel, name: str) -> int:
    """How many times coarser than the latents a layer works (1, 2, 4, ...)."""
    last = len(unet.config.block_out_channels) - 1
    place, *rest = name.split(".")
    if place == "mid_block":
        level = last
    elif place == "down_blocks":
        level = int(rest[0])
    else:
        level = last - int(rest[0])
    return int(2 ** min(level, last))


@contextmanager
def probing(
    unet: UNet2DConditionModel, stride: int, columns: Tensor | None = None
) -> Iterator[AttentionProbe]:
    """Record the maps of the layers of one stride, of some columns, while the context is open."""
    probe = AttentionProbe(columns)
    layers = [
        module for name, module in cross_attention_layers(unet).items() if layer_stride(unet, name) == stride
    ]
    kept = [layer.processor for layer in layers]
    for layer in layers:
        layer.processor = Recorder(probe.add)
    try:
        yield probe
    finally:
        for layer, processor in zip(layers, kept, strict=True):
            layer.processor = processor


def as_grid(maps: Tensor, height: int, width: int, stride: int) -> Tensor:
    """(P, cells, tokens) to (P, R, R', tokens) for latents of a given size; odd sides are rounded up."""
    return maps.unflatten(1, (math.ceil(height / stride), math.ceil(width / stride)))
