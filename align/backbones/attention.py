"""Reading cross-attention maps out of a diffusers UNet.

Layers of the asked-for resolution compute explicit probabilities, and only while the probe is open; all others, and all calls
without, keep diffusers' fused attention.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor


class Recorder:
    """Attention processor with explicit probabilities that reports the head-averaged maps of every call, (batch, cells, tokens)
    float32 with rows summing to 1.
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
        # Scaled while they are summed: in half precision unscaled logits lose digits, or overflow.
        logits = torch.baddbmm(query.new_zeros(1, 1, 1), query, key.transpose(1, 2), beta=0, alpha=attn.scale)
        probabilities = torch.softmax(logits, dim=-1, dtype=torch.float32)
        self.report(probabilities.view(len(hidden_states), -1, *probabilities.shape[1:]).mean(dim=1))
        out: Tensor = attn.batch_to_head_dim(probabilities.to(value.dtype) @ value)
        out = attn.to_out[1](attn.to_out[0](out))
        return out


class _Reading(NamedTuple):
    """What a probe has read: the sum of its layers' maps; ``on`` while it reads.

    How many it has read is not counted: compiled blocks would be compiled for every number.
    """

    on: bool = False
    total: Tensor | None = None


class Probe:
    """Layers whose attention is read while it is open, which are found once: closed, they are as diffusers has them.

    ``stride`` is how many times coarser than the latents their maps are.
    """

    def __init__(self, stride: int, layers: int) -> None:
        self.stride, self.layers = stride, layers
        self.reading = _Reading()

    def switched(self, on: bool = True) -> AbstractContextManager[None]:
        """While the context is open the layers are read, or are not; it can be entered again, within others too."""
        return _Open(self, on)

    def add(self, maps: Tensor) -> None:
        total = self.reading.total
        self.reading = _Reading(True, maps if total is None else total + maps)

    def mean(self, height: int, width: int) -> Tensor:
        """Average over the layers, (batch, R, R', tokens) for latents of a given size; odd sides are rounded up.

        Raises:
            RuntimeError: no layer was read.
        """
        if self.reading.total is None:
            raise RuntimeError("no attention layer has the resolution asked for")
        sides = math.ceil(height / self.stride), math.ceil(width / self.stride)
        mean = self.reading.total / self.layers
        return mean.view(len(mean), *sides, -1)


class AttentionProbe(Probe):
    """The cross-attention layers of a UNet ``stride`` times coarser than the latents."""

    def __init__(self, unet: UNet2DConditionModel, stride: int) -> None:
        found = cross_attention_layers(unet).get(stride, ())
        super().__init__(stride, len(found))
        for layer in found:
            layer.processor = _Switched(self, layer.processor)


class _Switched(Recorder):
    """The processor of one layer: a recorder while the probe is open, what was there before when it is closed."""

    def __init__(self, probe: Probe, fused: Callable[..., Tensor]) -> None:
        super().__init__(probe.add)
        self.probe, self.fused = probe, fused

    def __call__(self, attn: Attention, hidden_states: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
        if self.probe.reading.on:
            return super().__call__(attn, hidden_states, *arguments, **keywords)
        return self.fused(attn, hidden_states, *arguments, **keywords)


class _Open(AbstractContextManager[None]):
    def __init__(self, probe: Probe, on: bool) -> None:
        self.probe, self.on = probe, on
        self.before: list[_Reading] = []

    def __enter__(self) -> None:
        self.before.append(self.probe.reading)
        self.probe.reading = _Reading(self.on)

    def __exit__(self, *_: object) -> None:
        self.probe.reading = self.before.pop()


def cross_attention_layers(unet: UNet2DConditionModel) -> Mapping[int, list[Attention]]:
    """All cross-attention layers, by how many times coarser than the latents they work (1, 2, 4, ...)."""
    found: dict[int, list[Attention]] = {}
    for name, module in unet.named_modules():
        if isinstance(module, Attention) and name.endswith("attn2"):
            found.setdefault(_stride(unet, name), []).append(module)
    return found


def _stride(unet: UNet2DConditionModel, name: str) -> int:
    last = len(unet.config.block_out_channels) - 1
    place, number, *_ = name.split(".")
    if place == "mid_block":
        return 1 << last
    return 1 << (int(number) if place == "down_blocks" else last - int(number))
