"""From words to token pairs.

Alignment is by character offsets, so a repeated word or a word of several pieces is found where it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from align.semantics.graph import Graph, GraphSource, Span


@dataclass(frozen=True)
class TokenPairs:
    """Token indices whose maps should agree (noun, attribute) and whose should differ (noun, noun)."""

    positive: tuple[tuple[int, int], ...] = ()
    negative: tuple[tuple[int, int], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.positive or self.negative)


class ReadPrompt(Protocol):
    """A prompt as a model reads it (see ``Encoded``)."""

    @property
    def offsets(self) -> Sequence[Span]:
        """Character span of each token that the model reads, (0, 0) for special ones."""
        ...

    @property
    def limit(self) -> int:
        """Index of the first token that is not a word of the prompt."""
        ...

    @property
    def pieces(self) -> Sequence[str]:
        """All word pieces of the prompt, with start and end token, not truncated."""
        ...


PairSource = Callable[[str, ReadPrompt], TokenPairs]
"""From a prompt and how the model reads it to its token pairs."""


def pairs_by_offsets(graph: GraphSource) -> PairSource:
    """The pairs of a prompt's graph, aligned by character offsets."""
    return lambda prompt, read: token_pairs(graph(prompt), read.offsets, read.limit)


def tokens_of(span: Span, offsets: Sequence[Span], limit: int) -> tuple[int, ...]:
    """Indices below ``limit`` of the tokens that lie within a span of characters.

    Args:
        span: characters of a word.
        offsets: character span of each token, (0, 0) for special tokens.
        limit: first index that is not a word of the prompt any more (truncation puts the end token there).
    """
    start, end = span
    return tuple(
        k
        for k, (first, last) in enumerate(offsets)
        if first < last and first >= start and last <= end and k < limit
    )


def token_pairs(graph: Graph, offsets: Sequence[Span], limit: int) -> TokenPairs:
    """Pairs of DyMO's semantic objective (section 3.2 of the paper).

    Positive: every noun token with every token of its attributes.  Negative: noun tokens of every two
    objects.  Attributes of different objects are not contrasted.  Words cut off by truncation are left out
    before counting.
    """
    nouns = [tokens_of(entity.noun, offsets, limit) for entity in graph.entities]
    positive = [
        (noun, other)
        for entity, indices in zip(graph.entities, nouns, strict=True)
        for attribute in entity.attributes
        for noun in indices
        for other in tokens_of(attribute, offsets, limit)
    ]
    negative = [
        (one, two)
        for n, first in enumerate(nouns)
        for second in nouns[n + 1 :]
        for one in first
        for two in second
    ]
    return TokenPairs(tuple(positive), tuple(negative))
