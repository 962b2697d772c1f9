"""Reading prompts: each text once, by encoders that are on the device only meanwhile; and what CLIP's encoders make of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from align.backbones.base import Encoded
from align.semantics.graph import Span
from align.text import readable

REMEMBERED = 1024
"""Texts whose embeddings are kept: about 0.3 MB each for SDXL in 16 bit."""


class TextEncoder(NamedTuple):
    """A tokenizer and the transformer that reads its tokens."""

    tokenizer: PreTrainedTokenizerBase
    model: nn.Module


class Text(NamedTuple):
    """What a network reads of one text.

    Attributes:
        states: (L, width), a row for each token.
        pooled: a vector (D,) of the text as a whole.
        mask: (L,) bool, which of the rows count, for networks that read it.
    """

    states: Tensor
    pooled: Tensor | None = None
    mask: Tensor | None = None


class Words(NamedTuple):
    """Where a prompt's words are among the tokens of one encoder.

    Attributes:
        offsets: character span of each of L tokens, (0, 0) for special ones and padding.
        cut: whether the prompt is longer than that.
        pieces: all pieces of the prompt as the vocabulary spells them, special ones too, not truncated.
    """

    offsets: tuple[Span, ...]
    cut: bool = False
    pieces: tuple[str, ...] = ()


def words(tokenizer: PreTrainedTokenizerBase, text: str, length: int | None = None) -> Words:
    """Of the tokens of a text that is filled up, or cut, to a ``length``, by default the tokenizer's own."""
    length = length or tokenizer.model_max_length
    whole = tokenizer(readable(text), return_offsets_mapping=True, verbose=False)
    offsets = [tuple(span) for span in whole["offset_mapping"]]
    cut = len(offsets) > length
    if cut:
        offsets = [*offsets[: length - 1], (0, 0)]  # the end token
    offsets += [(0, 0)] * (length - len(offsets))
    return Words(tuple(offsets), cut, tuple(tokenizer.convert_ids_to_tokens(whole["input_ids"])))


def framed(tokenizer: PreTrainedTokenizerBase, text: str, frame: Callable[[str], str], length: int) -> Words:
    """Like ``words``, of what ``frame`` makes of a text for a language model to read; spans are those in the text itself."""
    text = readable(text)
    found = words(tokenizer, frame(text), length)
    begin = frame("\0").index("\0")
    return found._replace(offsets=tuple(_inside(text, a - begin, b - begin) for a, b in found.offsets))


def _inside(text: str, first: int, last: int) -> Span:
    """A token's span without the blanks that it begins with; (0, 0) if it is not of the text."""
    if not 0 <= first < last <= len(text):
        return 0, 0
    letters = len(text[first:last].lstrip())
    return (last - letters, last) if letters else (0, 0)


def clip_text(encoders: Sequence[TextEncoder], text: str, device: torch.device) -> Text:
    """Of one encoder the last hidden state counts, and its pooled output; of several the second-to-last hidden states side by
    side, and the last one's pooled output.
    """
    states, pooled = [], None
    for encoder in encoders:
        longest = encoder.tokenizer.model_max_length
        ids = encoder.tokenizer(
            readable(text), padding="max_length", truncation=True, max_length=longest, return_tensors="pt"
        ).input_ids.to(device)
        found = encoder.model(ids, output_hidden_states=len(encoders) > 1)
        if len(encoders) == 1:
            return Text(found[0][0], found[1][0])
        states.append(found.hidden_states[-2][0])
        pooled = found[0][0]
    return Text(torch.cat(states, dim=-1), pooled)


class TextReader:
    """From texts to embeddings.

    Args:
        encoders: text encoders.
        read: what they make of one text, alone in its call, so that its embedding cannot depend on what it is read beside.
        find: where the words of a prompt are among the tokens of each encoder whose states the network reads, in the order
            of its columns, by the encoder's name; of further encoders that read it only as a whole, with no offsets.
        zero_empty: whether an empty negative prompt is all zeros rather than what the encoders make of it.
        device: where embeddings are wanted.  On CUDA, encoders are there only while prompts are read.
        size: (6,) of ``Encoded``, for models that read it.
        negative: what they make of a negative prompt, if it is read in another way.
    """

    def __init__(
        self,
        encoders: Sequence[TextEncoder],
        read: Callable[[str], Text],
        find: Callable[[str], dict[str, Words]],
        device: torch.device,
        zero_empty: bool = False,
        size: Tensor | None = None,
        negative: Callable[[str], Text] | None = None,
    ) -> None:
        self.encoders = tuple(encoders)
        self.find = find
        self.zero_empty = zero_empty
        self.device = device
        self.size = size
        self._home = torch.device("cpu") if device.type == "cuda" else device
        self._place = self._home
        for encoder in self.encoders:
            encoder.model.to(self._home)
        self._read, self._read_negative = read, negative
        # A repeated prompt, and the empty negative one of every prompt, cost nothing.
        self.encode = lru_cache(REMEMBERED)(self._encode)
        self._texts = lru_cache(REMEMBERED)(self._text)

    def rest(self) -> None:
        """Give the device back what the encoders hold of it, until the next new prompt."""
        self._move(self._home)

    def _move(self, place: torch.device) -> None:
        if place != self._place:
            for encoder in self.encoders:
                encoder.model.to(place)
            self._place = place

    @torch.no_grad()
    def _text(self, text: str, negative: bool) -> Text:
        self._move(self.device)
        read = self._read_negative if negative and self._read_negative is not None else self._read
        return read(text)

    def _encode(self, prompt: str, negative: str) -> Encoded:
        own = self._texts(prompt, False)
        if self.zero_empty and negative == "":
            other = Text(*(one if one is None else torch.zeros_like(one) for one in own))  # type: ignore[arg-type]
        else:
            other = self._texts(negative, self._read_negative is not None)
        found = self.find(prompt)
        offsets: list[Span] = []
        parts: list[tuple[int, int]] = []
        for one in found.values():
            if one.offsets:
                parts.append((len(offsets), len(offsets) + len(one.offsets)))
                offsets += one.offsets
        offsets += [(0, 0)] * (len(own.states) - len(offsets))
        cut = tuple(name for name, one in found.items() if one.cut)
        pieces = next(one.pieces for one in found.values() if one.offsets)
        return Encoded(
            prompt=own.states,
            negative=other.states,
            offsets=tuple(offsets),
            limit=min(len(pieces), len(offsets)) - 1 if len(parts) == 1 else len(offsets),
            parts=tuple(parts),
            truncated=len(cut) == len(found),
            cut=cut,
            pooled_prompt=own.pooled,
            pooled_negative=other.pooled,
            mask_prompt=own.mask,
            mask_negative=other.mask,
            size=self.size,
            pieces=pieces,
        )
