"""A prompt's semantic graph: objects and the words that describe them, as character spans."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Span = tuple[int, int]
"""Start (included) and end (excluded) of a word in the prompt, in characters."""


@dataclass(frozen=True)
class Entity:
    """One object word and its attribute words."""

    noun: Span
    attributes: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Graph:
    """The objects of a prompt, in order; empty for a prompt that could not be read."""

    entities: tuple[Entity, ...] = ()


GraphSource = Callable[[str], Graph]
"""From a prompt to its graph."""
