"""From words to token pairs.

Alignment is by character offsets, so a repeated word or a word of several pieces is found where it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

from align.semantics.graph import Graph, Span


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
    def parts(self) -> Sequence[tuple[int, int]]:
        """Which tokens, from one up to another, are of the same encoder; none where there is one."""
        ...

    @property
    def pieces(self) -> Sequence[str]:
        """All word pieces of the prompt, with start and end token, not truncated."""
        ...


PairSource = Callable[[str, ReadPrompt], TokenPairs]
"""From a prompt and how the model reads it to its token pairs."""


def tokens_of(span: Span, offsets: Sequence[Span], limit: int) -> tuple[int, ...]:
    """Indices below ``limit`` (where truncation puts the end token) of the tokens within a word's characters."""
    start, end = span
    return tuple(k for k, (first, last) in enumerate(offsets[:limit]) if start <= first < last <= end)


def token_pairs(
    graph: Graph, offsets: Sequence[Span], limit: int, parts: Sequence[tuple[int, int]] = ()
) -> TokenPairs:
    """Pairs of DyMO's semantic objective (section 3.2 of the paper).

    Positive: every noun token with every token of its attributes.  Negative: noun tokens of every two
    objects.  Attributes of different objects are not contrasted.  Words cut off by truncation are left out
    before counting.  Where several encoders read the prompt, each has its own ``parts`` of the tokens, and pairs are formed
    inside each: maps of two encoders are not alike.
    """
    positive: list[tuple[int, int]] = []
    negative: list[tuple[int, int]] = []
    for part in parts or ((0, limit),):
        here = [(0, 0)] * part[0] + list(offsets[part[0] : part[1]])
        nouns = [tokens_of(entity.noun, here, limit) for entity in graph.entities]
        positive += [
            (noun, other)
            for entity, indices in zip(graph.entities, nouns, strict=True)
            for attribute in entity.attributes
            for noun in indices
            for other in tokens_of(attribute, here, limit)
        ]
        negative += [
            (one, two) for first, second in combinations(nouns, 2) for one in first for two in second
        ]
    return TokenPairs(tuple(positive), tuple(negative))
