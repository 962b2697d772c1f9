"""A prompt's semantic graph: objects and the words that describe them, as character spans."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

Span = tuple[int, int]
"""Start (included) and end (excluded) of a word in the prompt, in characters."""


class GraphError(Exception):
    """A prompt's graph cannot be had or used; the message is one line for the user."""


class RefusedError(GraphError):
    """No graph of any prompt can be had this way: a wrong key, a model that is not there."""


@dataclass(frozen=True)
class Entity:
    """One object word and its attribute words."""

    noun: Span
    attributes: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Graph:
    """The objects of a prompt, in order, and words about the whole picture; empty for a prompt that could not be read."""

    entities: tuple[Entity, ...] = ()
    style: tuple[Span, ...] = ()


GraphSource = Callable[[str], Graph]
"""From a prompt to its graph."""


def with_style(graph: Graph) -> Graph:
    """Style words as attributes of every object: where an object is, its style should show.

    A style word that is an object or one of its attributes already is not added to it again.
    """
    entities = []
    for entity in graph.entities:
        own = {entity.noun, *entity.attributes}
        more = tuple(span for span in graph.style if span not in own)
        entities.append(replace(entity, attributes=entity.attributes + more))
    return replace(graph, entities=tuple(entities))
