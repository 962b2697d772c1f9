"""Reading attention maps out of transformers whose image and text tokens attend to each other in one softmax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor

Processor = Callable[..., Any]


def shares(query: Tensor, key: Tensor) -> Tensor:
    """Which text an image cell looks at, of what it looks at text at all: (batch, cells, tokens) float32, rows summing to 1.

    Softmax over the logits of the text alone, which is the joint map divided by its sum over text, averaged over heads; it
    needs no product of image with image.

    Args:
        query: of the image's cells, (batch, heads, cells, width).
        key: of the text's tokens, (batch, heads, tokens, width).
    """
    logits = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    return torch.softmax(logits, dim=-1, dtype=torch.float32).mean(dim=1)


class SD3Recorder:
    """A block's processor that reports ``shares`` of every call; the attention itself is left to ``fused``."""

    def __init__(self, report: Callable[[Tensor], None], fused: Processor) -> None:
        self.report, self.fused = report, fused

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        *more: Any,
        **keywords: Any,
    ) -> Any:
        """As diffusers' own processors: image tokens (batch, cells, width) beside text tokens (batch, tokens, width)."""
        query = attn.to_q(hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
        key = attn.add_k_proj(encoder_hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
        query = query if attn.norm_q is None else attn.norm_q(query)
        key = key if attn.norm_added_k is None else attn.norm_added_k(key)
        self.report(shares(query, key))
        return self.fused(attn, hidden_states, encoder_hidden_states, *more, **keywords)
