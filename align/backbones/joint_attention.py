"""Reading attention maps out of transformers whose image and text tokens attend to each other in one softmax.

What cross-attention is in a UNet is the block *image rows x text columns* here.  Of the blocks read, projections are computed
once more beside diffusers' own processors, which go on to do the attention itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor, nn

from align.backbones.attention import Probe

Processor = Callable[..., Any]


def shares(query: Tensor, key: Tensor, bias: Tensor | None = None) -> Tensor:
    """Which text an image cell looks at, of what it looks at text at all: (batch, cells, tokens) float32, rows summing to 1.

    Softmax over the logits of the text alone, which is the joint map divided by its sum over text, averaged over heads; it
    needs no product of image with image.

    Args:
        query: of the image's cells, (batch, heads, cells, width).
        key: of the text's tokens, (batch, heads, tokens, width).
        bias: added to the logits of each token, (batch, 1, tokens): far below 0 where one does not count.
    """
    logits = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if bias is not None:
        logits = logits + bias[:, None]
    return torch.softmax(logits, dim=-1, dtype=torch.float32).mean(dim=1)


def joint(query: Tensor, key: Tensor, image: Tensor) -> Tensor:
    """Which text an image cell looks at, of all that it looks at: rows sum to less than 1; ``image`` keys as ``key``'s."""
    logits = (query * query.shape[-1] ** -0.5) @ torch.cat([key, image], dim=2).transpose(-1, -2)
    return torch.softmax(logits, dim=-1, dtype=torch.float32)[..., : key.shape[2]].mean(dim=1)


Maps = Literal["share", "joint", "joint_share"]
"""``shares``; what ``joint`` gives; that, over its sum over text: heads that look at text more count more."""


class JointRecorder(ABC):
    """A block's processor that reports the maps of every call; the attention itself is left to ``fused``.

    Args:
        report: is given the maps.
        fused: diffusers' own processor.
        maps: which.
    """

    tokens: Callable[[], int]
    """How many tokens the text has, where a block is not told it."""

    def __init__(self, report: Callable[[Tensor], None], fused: Processor, maps: Maps = "share") -> None:
        self.report, self.fused, self.maps = report, fused, maps

    def __call__(self, attn: Any, hidden_states: Tensor, *more: Any, **keywords: Any) -> Any:
        """As diffusers' own processors: image tokens (batch, cells, width) beside text tokens (batch, tokens, width)."""
        query, key, image = self.projected(attn, hidden_states, *more, **keywords)
        found = shares(query, key) if self.maps == "share" else joint(query, key, image())
        self.report(found / found.sum(dim=-1, keepdim=True) if self.maps == "joint_share" else found)
        return self.fused(attn, hidden_states, *more, **keywords)

    @abstractmethod
    def projected(
        self, attn: Any, hidden_states: Tensor, *more: Any, **keywords: Any
    ) -> tuple[Tensor, Tensor, Callable[[], Tensor]]:
        """Queries of the image, keys of the text, keys of the image if they are asked for: (batch, heads, ..., width)."""


class SD3Recorder(JointRecorder):
    """Of a block of Stable Diffusion 3."""

    def projected(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        *_: Any,
        **__: Any,
    ) -> tuple[Tensor, Tensor, Callable[[], Tensor]]:
        def heads(x: Tensor, norm: nn.Module | None) -> Tensor:
            x = x.view(*x.shape[:2], attn.heads, -1).transpose(1, 2)
            return x if norm is None else norm(x)

        return (
            heads(attn.to_q(hidden_states), attn.norm_q),
            heads(attn.add_k_proj(encoder_hidden_states), attn.norm_added_k),
            lambda: heads(attn.to_k(hidden_states), attn.norm_k),
        )


class FluxRecorder(JointRecorder):
    """Of a block of FLUX: of two streams, or of a single one that begins with the text."""

    def projected(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
        **_: Any,
    ) -> tuple[Tensor, Tensor, Callable[[], Tensor]]:
        if encoder_hidden_states is None:
            length = self.tokens()
            text, cells = hidden_states[:, :length], hidden_states[:, length:]
            text_key, text_norm = attn.to_k, attn.norm_k
        else:
            text, cells = encoder_hidden_states, hidden_states
            length, text_key, text_norm = text.shape[1], attn.add_k_proj, attn.norm_added_k

        def heads(x: Tensor, norm: nn.Module, where: slice) -> Tensor:
            x = norm(x.view(*x.shape[:2], -1, attn.head_dim))
            if image_rotary_emb is not None:
                turned = tuple(one[where] for one in image_rotary_emb)
                x = apply_rotary_emb(x, turned, sequence_dim=1)
            return x.transpose(1, 2)

        image = slice(length, None)
        return (
            heads(attn.to_q(cells), attn.norm_q, image),
            heads(text_key(text), text_norm, slice(length)),
            lambda: heads(attn.to_k(cells), attn.norm_k, image),
        )


class CrossRecorder(JointRecorder):
    """Of a layer of SANA or PixArt that attends to the text alone, so that all maps are one; filling has no part in it."""

    def __call__(self, attn: Any, hidden_states: Tensor, *more: Any, **keywords: Any) -> Any:
        query, key, bias = self.projected(attn, hidden_states, *more, **keywords)
        self.report(shares(query, key, bias()))
        return self.fused(attn, hidden_states, *more, **keywords)

    def projected(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *_: Any,
        **__: Any,
    ) -> tuple[Tensor, Tensor, Callable[[], Tensor]]:
        """With what is added to the logits in place of the image's keys."""
        assert attention_mask is not None
        bias = attention_mask

        def heads(x: Tensor, norm: nn.Module | None) -> Tensor:
            x = x if norm is None else norm(x)
            return x.view(*x.shape[:2], attn.heads, -1).transpose(1, 2)

        return (
            heads(attn.to_q(hidden_states), attn.norm_q),
            heads(attn.to_k(encoder_hidden_states), attn.norm_k),
            lambda: bias,
        )


class JointProbe(Probe):
    """Some of a transformer's joint attention layers; ``stride`` is the side of a token in latents."""

    def __init__(
        self,
        layers: Sequence[nn.Module],
        recorder: type[JointRecorder],
        stride: int,
        maps: Maps = "share",
    ) -> None:
        super().__init__(stride, len(layers))
        self.tokens = 0
        for layer in layers:
            one: Any = layer
            made = recorder(self.add, one.processor, maps)
            made.tokens = lambda: self.tokens
            one.processor = _Switched(self, made)


class _Switched:
    """The processor of one layer: a recorder while the probe is open, what was there before when it is closed."""

    def __init__(self, probe: Probe, recorder: JointRecorder) -> None:
        self.probe, self.recorder = probe, recorder

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        chosen = self.recorder if self.probe.reading.on else self.recorder.fused
        return chosen(*arguments, **keywords)
