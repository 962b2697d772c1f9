"""DyMO's published format of a graph: words instead of places.

``{"prompt": ..., "knowledge": [{"object": ["attribute", ...]}, ...], "global": [{"style": [...]}]}``; each
dictionary of ``knowledge`` normally has one key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from align.semantics.graph import Graph, GraphError, Span


@dataclass(frozen=True)
class Knowledge:
    """A graph by its words: objects with their attributes in order, one maybe several times; words about the whole picture."""

    objects: tuple[tuple[str, tuple[str, ...]], ...] = ()
    style: tuple[str, ...] = ()

    def to_json(self, prompt: str) -> dict[str, Any]:
        """The published format."""
        return {
            "prompt": prompt,
            "knowledge": [{noun: list(attributes)} for noun, attributes in self.objects],
            "global": [{"style": list(self.style)}],
        }


def read_knowledge(value: object) -> Knowledge:
    """The graph of a JSON value in the published format, whose ``prompt`` is not looked at.

    Raises GraphError: it is something else; the message says what, not where.
    """
    if not isinstance(value, Mapping) or not isinstance(value.get("knowledge"), list):
        raise GraphError('it is no object with a list "knowledge"')
    objects: list[tuple[str, tuple[str, ...]]] = []
    for entry in value["knowledge"]:
        if not isinstance(entry, Mapping):
            raise GraphError(f'an entry of "knowledge" is no {{"object": [attributes]}}: {entry!r:.60}')
        objects += [(_word(noun), _words(attributes)) for noun, attributes in entry.items()]
    style: list[str] = []
    more = value.get("global") or []
    if not isinstance(more, list):
        raise GraphError(f'"global" is no list: {more!r:.60}')
    for entry in more:
        if not isinstance(entry, Mapping):
            raise GraphError(f'an entry of "global" is no {{"style": [words]}}: {entry!r:.60}')
        for words in entry.values():
            style += _words(words)
    return Knowledge(tuple(objects), tuple(style))


def words_of(graph: Graph, prompt: str) -> Knowledge:
    """A graph's places as words again."""

    def word(span: Span) -> str:
        return prompt[span[0] : span[1]]

    objects = tuple((word(one.noun), tuple(map(word, one.attributes))) for one in graph.entities)
    return Knowledge(objects, tuple(map(word, graph.style)))


def _words(value: object) -> tuple[str, ...]:
    if isinstance(value, str):  # some language models leave the brackets out
        value = [value]
    if value is None:
        return ()
    if not isinstance(value, list):
        raise GraphError(f"attributes are no list of words: {value!r:.60}")
    return tuple(_word(one) for one in value if one != "")


def _word(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise GraphError(f"a word is no text: {value!r:.60}")
    return str(value).strip()
