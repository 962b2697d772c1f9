"""Words of a graph to places in its prompt.

What the released code gets wrong is done otherwise here: whole words are looked for before inflected forms and
never parts of words, phrases are found as such, a word that is not there loses only itself, an object that is
listed again is its next occurrence, and of several places the one nearest to its object is an attribute's.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Sequence

from align.semantics.graph import Entity, Graph, Span
from align.semantics.inflection import same_number_aside, same_stem
from align.semantics.knowledge import Knowledge

WORD = re.compile(r"[^\W_]+")
"""A word or the part of a hyphenated one; also what is left of and right of an apostrophe."""

log = logging.getLogger(__name__)

Same = Callable[[str, str], bool]


def match(knowledge: Knowledge, prompt: str) -> Graph:
    """The graph with its words where they stand in the prompt.

    Words that are not there are left out, with one warning that names them all.  Entries whose object is found
    at one and the same place (listed more often than it occurs) are joined.
    """
    find = _Finder(prompt)
    nouns = _nouns(knowledge, find)
    taken = {place for place in nouns if place is not None}
    lost = [noun for place, (noun, _) in zip(nouns, knowledge.objects, strict=True) if place is None]
    attributes: dict[Span, list[Span]] = {noun: [] for noun in nouns if noun is not None}
    for place, (_, wanted) in zip(nouns, knowledge.objects, strict=True):
        if place is None:
            continue
        for word in wanted:
            found = find(word, same_stem)
            # An object's own words do not describe it; the word of a description is used once.
            usable = [one for one in found if not _overlap(one, place) and one not in attributes[place]]
            if usable:
                attributes[place].append(min(usable, key=lambda one: find.distance(one, place, taken)))
            elif not found:
                lost.append(word)
    style = [found[0] for word in knowledge.style if (found := find(word, same_stem))]
    if lost:
        log.warning("words of the graph are not in the prompt %.80r: %s", prompt, ", ".join(lost))
    entities = (Entity(noun, tuple(sorted(spans))) for noun, spans in attributes.items())
    return Graph(tuple(entities), tuple(dict.fromkeys(style)))


def _nouns(knowledge: Knowledge, find: _Finder) -> list[Span | None]:
    """The place of every entry's object: successive occurrences of a repeated word.

    Phrases choose first, then entries with attributes, and these the occurrence that is nearest to theirs, so that a graph that lists the
    blue car before the red one is read as it is meant.
    """
    nouns: list[Span | None] = [None] * len(knowledge.objects)
    order = sorted(
        range(len(nouns)), key=lambda k: (-len(knowledge.objects[k][0].split()), not knowledge.objects[k][1])
    )
    for k in order:
        noun, attributes = knowledge.objects[k]
        places = find(noun, same_number_aside)
        taken = [place for place in nouns if place is not None]
        fresh = [place for place in places if not any(_overlap(place, other) for other in taken)]
        if len(fresh) > 1:
            described = [spots for word in attributes if (spots := find(word, same_stem))]
            nouns[k] = min(fresh, key=lambda place: _far(place, described, find))
        elif fresh:
            nouns[k] = fresh[0]
        elif places:
            nouns[k] = next(other for other in taken if _overlap(places[0], other))
    return nouns


def _far(noun: Span, described: Sequence[Sequence[Span]], find: _Finder) -> float:
    """How far an occurrence of an object is from the nearest occurrences of its attributes, in all."""
    return sum(min(find.distance(spot, noun, ())[0] for spot in spots) for spots in described)


class _Finder:
    """Looks words and phrases up among the words of a prompt."""

    def __init__(self, prompt: str) -> None:
        self.prompt = prompt
        self.words = [found.span() for found in WORD.finditer(prompt)]
        self.texts = [prompt[start:end].lower() for start, end in self.words]

    def __call__(self, wanted: str, loosely: Same) -> list[Span]:
        """Places of a word or phrase, left to right: as written, else inflected, else its last words alone."""
        parts = [found[0].lower() for found in WORD.finditer(wanted)]
        if not parts:
            return []
        for same in (str.__eq__, loosely):
            if found := self._phrase(parts, same):
                return found
        # "grizzly bear" for a prompt that only says bear: the head of an English phrase is its last word.
        return self(" ".join(parts[1:]), loosely) if len(parts) > 1 else []

    def _phrase(self, parts: Sequence[str], same: Same) -> list[Span]:
        length = len(parts)
        return [
            (self.words[k][0], self.words[k + length - 1][1])
            for k in range(len(self.texts) - length + 1)
            if all(same(text, part) for text, part in zip(self.texts[k : k + length], parts, strict=True))
        ]

    def distance(self, place: Span, noun: Span, nouns: Collection[Span]) -> tuple[float, bool]:
        """How far a description is from an object, counted in words.

        Another object or the end of a phrase in between counts as a detour, and of two equally near places the one
        before the object wins, as English adjectives precede.
        """
        low, high = min(place[1], noun[1]), max(place[0], noun[0])
        between = [span for span in self.words if span[0] >= low and span[1] <= high]
        barriers = sum(span in nouns for span in between)
        barriers += len(re.findall(r"[.,;:!?]", self.prompt[low:high]))
        return len(between) + 4 * barriers, place[0] > noun[0]


def _overlap(one: Span, two: Span) -> bool:
    return one[0] < two[1] and two[0] < one[1]
