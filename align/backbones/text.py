"""Reading prompts with CLIP text encoders: one in Stable Diffusion, two in Stable Diffusion XL."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import CLIPTokenizer

from align.backbones.base import Encoded
from align.text import readable

REMEMBERED = 1024
"""Texts whose embeddings are kept: about 0.3 MB each for SDXL in 16 bit."""


class TextEncoder(NamedTuple):
    """A tokenizer and the transformer that reads its tokens."""

    tokenizer: CLIPTokenizer
    model: nn.Module


class TextReader:
    """From texts to embeddings.

    Args:
        encoders: one encoder: its last hidden state counts.  Several: their second-to-last hidden states side by
            side, and the last one's pooled output.
        zero_empty: whether an empty negative prompt is all zeros rather than what the encoders make of it.
        device: where embeddings are wanted.  On CUDA, encoders are there only while prompts are read.
        size: (6,) of ``Encoded``, for models that read it.
    """

    def __init__(
        self,
        encoders: Sequence[TextEncoder],
        zero_empty: bool,
        device: torch.device,
        size: Tensor | None = None,
    ) -> None:
        self.encoders = tuple(encoders)
        self.zero_empty = zero_empty
        self.device = device
        self.size = size
        self._home = torch.device("cpu") if device.type == "cuda" else device
        self._place = self._home
        for encoder in self.encoders:
            encoder.model.to(self._home)
        # A repeated prompt, and the empty negative one of every prompt, cost nothing.
        self.encode = lru_cache(REMEMBERED)(self._encode)
        self._states = lru_cache(REMEMBERED)(self._read)

    def rest(self) -> None:
        """Give the device back what the encoders hold of it, until the next new prompt."""
        self._move(self._home)

    def _move(self, place: torch.device) -> None:
        if place != self._place:
            for encoder in self.encoders:
                encoder.model.to(place)
            self._place = place

    @torch.no_grad()
    def _read(self, text: str) -> tuple[Tensor, Tensor | None]:
        """Embeddings (L, width) of one text and, of several encoders, its pooled vector (D,)."""
        self._move(self.device)
        states, pooled = [], None
        for encoder in self.encoders:
            longest = encoder.tokenizer.model_max_length
            # One text a call: its embedding cannot depend on what it is read beside.
            ids = encoder.tokenizer(
                readable(text), padding="max_length", truncation=True, max_length=longest, return_tensors="pt"
            ).input_ids.to(self.device)
            if len(self.encoders) == 1:
                states.append(encoder.model(ids)[0][0])
            else:
                found = encoder.model(ids, output_hidden_states=True)
                states.append(found.hidden_states[-2][0])
                pooled = found[0][0]
        return torch.cat(states, dim=-1), pooled

    def _encode(self, prompt: str, negative: str) -> Encoded:
        own, pooled = self._states(prompt)
        if self.zero_empty and negative == "":
            other = torch.zeros_like(own)
            other_pooled = None if pooled is None else torch.zeros_like(pooled)
        else:
            other, other_pooled = self._states(negative)
        # The encoders share one vocabulary, so the first tells where the words are.
        tokenizer = self.encoders[0].tokenizer
        longest = tokenizer.model_max_length
        whole = tokenizer(readable(prompt), return_offsets_mapping=True, verbose=False)
        number = len(whole["input_ids"])
        offsets = [tuple(span) for span in whole["offset_mapping"][:longest]]
        offsets += [(0, 0)] * (longest - len(offsets))
        return Encoded(
            prompt=own,
            negative=other,
            offsets=tuple(offsets),
            limit=min(number, longest) - 1,
            truncated=number > longest,
            pooled_prompt=pooled,
            pooled_negative=other_pooled,
            size=self.size,
            pieces=tuple(tokenizer.convert_ids_to_tokens(whole["input_ids"])),
        )
