"""The grammar's own parse as a semantic graph."""

from __future__ import annotations

import re

from align.semantics.graph import Entity, Graph
from align.shapes.grammar import COLOURS, NOUNS, SIZES, parse

_WORD = re.compile(r"[a-z]+")


def graph(prompt: str) -> Graph:
    """Shape words as objects, their size and colour words as attributes; empty for other texts."""
    if parse(prompt) is None:
        return Graph()
    entities: list[Entity] = []
    attributes: list[tuple[int, int]] = []
    for found in _WORD.finditer(prompt.lower()):
        if found[0] in NOUNS:
            entities.append(Entity(found.span(), tuple(attributes)))
            attributes = []
        elif found[0] in COLOURS or found[0] in SIZES:
            attributes.append(found.span())
    return Graph(tuple(entities))
