"""A prompt's graph by small rules of English, for prompts that nobody has written a graph for.

Objects are the heads of noun phrases; what describes them are the words before the head, participles behind it,
what an object is made of, and adjectives that a sentence says of it.  Words for the kind of picture are style.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from align.semantics.graph import Entity, Graph
from align.semantics.rules import lexicon
from align.semantics.rules.phrases import Chunk, Other, Phrase, chunks
from align.semantics.rules.words import Word, read_words

VERSION = 1
"""Raised when the rules come to read some prompt otherwise: pictures depend on it."""


@dataclass
class _Thing:
    """An object while its description is collected: indices of words."""

    head: int
    about: list[int] = field(default_factory=list)
    before: str = ""
    """The preposition that leads to it."""
    governor: _Thing | None = None
    """The object that it is ``with``, ``in`` or ``on``."""
    article: bool = False


def graph(prompt: str) -> Graph:
    """Objects of a prompt with the words that describe them."""
    words = read_words(prompt)
    reader = _Reader(words, chunks(words))
    reader.read()
    spans = [word.span for word in words]
    entities = tuple(
        Entity(spans[thing.head], tuple(spans[k] for k in sorted(set(thing.about))))
        for thing in sorted(reader.things, key=lambda thing: thing.head)
    )
    return Graph(entities, tuple(spans[k] for k in sorted(set(reader.style))))


class _Reader:
    """Goes through the chunks once, left to right."""

    def __init__(self, words: Sequence[Word], found: Sequence[Chunk]) -> None:
        self.words = words
        self.chunks = found
        self.things: list[_Thing] = []
        self.style: list[int] = []
        self.last: _Thing | None = None
        """The object that a following participle may describe; none after a full stop."""
        self.first: _Thing | None = None
        """The first object of the sentence."""
        self.pending: list[int] = []
        """Words that describe the next object, such as "bouquet (of)"."""
        self.skip_to = 0

    def read(self) -> None:
        for place, chunk in enumerate(self.chunks):
            if place < self.skip_to:
                continue
            if isinstance(chunk, Phrase):
                self._phrase(place, chunk)
            else:
                self._other(place, chunk)

    def _word(self, place: int) -> Word | None:
        """A chunk that is a single word outside phrases; ``None`` for others and beyond the ends."""
        chunk = self.chunks[place] if 0 <= place < len(self.chunks) else None
        return self.words[chunk.place] if isinstance(chunk, Other) else None

    def _text(self, place: int) -> str:
        return word.text if (word := self._word(place)) else ""

    def _tag(self, place: int) -> str:
        return word.tag if (word := self._word(place)) else ""

    def _other(self, place: int, chunk: Other) -> None:
        word = self.words[chunk.place]
        if word.text in (".", "!", "?", ";"):
            self.last = self.first = None
            self.pending = []
        elif word.text == "by" and self._names_an_artist(place):
            self._style_until_comma(place + 1)
        elif word.tag in ("gerund", "participle"):
            self._participle(place, chunk, word)
        elif word.tag == "adjective" and self.last is not None and self._is_said_of_last(place):
            self.last.about.append(chunk.place)

    def _is_said_of_last(self, place: int) -> bool:
        """Whether an adjective without a noun follows its object: "a shelf full", "is red and very shiny"."""
        place -= 1
        while self._tag(place) in ("adverb", "conjunction", "adjective"):
            place -= 1
        return place >= 0 and (isinstance(self.chunks[place], Phrase) or self._tag(place) == "auxiliary")

    def _names_an_artist(self, place: int) -> bool:
        """Whether a "by" at a chunk leads to an artist: ", by ...", "portrait by ...", "a fox by Beatrix Potter"."""
        if self._text(place - 1) == "," or (self.style and not self.things):
            return True
        after = self.chunks[place + 1] if place + 1 < len(self.chunks) else None
        noun_before = place > 0 and isinstance(self.chunks[place - 1], Phrase)
        return noun_before and isinstance(after, Phrase) and self.words[after.start].capital

    def _participle(self, place: int, chunk: Other, word: Word) -> None:
        if word.text == "trending":
            self._style_until_comma(place)
            return
        target = self.last
        before = place - 1
        while self._tag(before) == "adverb":
            before -= 1
        if self._text(before) in (",", "while"):
            if word.tag == "participle" and self._tag(place + 1) in ("stop", "", "conjunction"):
                return  # ", highly detailed,": about the picture
            target = self.first  # "a man in a hat, smiling"
        elif word.tag == "gerund" and target is not None:
            target = self._doer(target, word.text)
        if target is not None and self._is_no_description(place, chunk, word):
            self.last = target
        elif target is not None:
            target.about.append(chunk.place)
            self.last = target

    def _is_no_description(self, place: int, chunk: Other, word: Word) -> bool:
        """Whether a participle says nothing by itself ("made of"), or is a past tense ("chased the cat")."""
        if word.text in ("made", "built", "constructed"):
            return True
        after = self.words[chunk.place + 1].tag if chunk.place + 1 < len(self.words) else "stop"
        active = isinstance(self.chunks[place - 1], Phrase) and after in ("determiner", "pronoun")
        return word.tag == "participle" and active

    @staticmethod
    def _doer(thing: _Thing, gerund: str) -> _Thing:
        """Who does what a gerund says: what stands before "in a white hat pouring", not the hat."""
        while thing.governor is not None and (
            thing.before in ("in", "from", "at", "as")
            or (thing.before in ("with", "on", "of") and (thing.article or gerund in lexicon.AGENTS_ONLY))
        ):
            thing = thing.governor
        return thing

    def _phrase(self, place: int, chunk: Phrase) -> None:
        head = self.words[chunk.head].text
        before, after = self._text(place - 1), self._text(place + 1)
        if head in lexicon.QUALITY or self._is_style(place, chunk):
            self.style += [*chunk.modifiers, chunk.head]
            if head in ("style", "art") and before in ("of", "in", "the") and after in ("of", "by"):
                self._style_until_comma(place + 2)
            return
        if before in (",", ".") and self.words[chunk.start].text == "style":
            self.style += [*chunk.modifiers, chunk.head]  # "..., style Thomas Kinkade"
            return
        if self._is_no_object(place, chunk):
            return
        if again := self._named_before(chunk):
            self.last = again
            self.first = self.first or again
            return
        if after == "of" and head in lexicon.PARTITIVES:
            self.pending += [*chunk.modifiers, chunk.head]
            return
        if before == "of" and self._text(place - 2) in ("made", "built", "constructed", "out"):
            self._material(chunk)
            return
        thing = _Thing(chunk.head, [*chunk.modifiers, *self.pending], article=chunk.determined)
        self.pending = []
        if self._tag(place - 1) == "preposition":
            thing.before, thing.governor = before, self.last
        elif before in ("and", "or", ",") and self.last is not None and not chunk.determined:
            thing.before, thing.governor = self.last.before, self.last.governor
        self.things.append(thing)
        self.last = thing
        self.first = self.first or thing

    def _named_before(self, chunk: Phrase) -> _Thing | None:
        """The object that a bare "the portal" names again; contrasting it with itself would be wrong."""
        if chunk.modifiers or self.pending or self.words[chunk.start].text != "the":
            return None
        noun = self.words[chunk.head].text
        same = [thing for thing in self.things if self.words[thing.head].text == noun]
        return same[-1] if same else None

    def _material(self, chunk: Phrase) -> None:
        """What something is made of describes it; with a description of its own it is an object too."""
        if self.last is not None:
            self.last.about.append(chunk.head)
        if chunk.modifiers:
            self.things.append(_Thing(chunk.head, list(chunk.modifiers)))

    def _is_style(self, place: int, chunk: Phrase) -> bool:
        """Whether a phrase names the kind of picture: at the start with "of", or alone between commas."""
        head = self.words[chunk.head].text
        if head not in lexicon.MEDIA:
            return False
        starts = place == 0 or self._text(place - 1) in (",", ".", ";", ":")
        after = self._tag(place + 1)
        if place == 0 or (starts and not self.things):
            leads = self._text(place + 1) in ("of", "by", "in", "showing", "depicting", ",", ".")
            return leads or after == ""
        if starts:
            return after in ("stop", "") or self._text(place + 1) in ("by", "in", "of")
        return head == "style"

    def _is_no_object(self, place: int, chunk: Phrase) -> bool:
        """Whether a phrase says where, when or how much instead of naming a thing."""
        head = self.words[chunk.head].text
        after_preposition = self._tag(place - 1) == "preposition"
        absent = self._text(place - 1) == "without" or self.words[chunk.start].text == "no"
        if head in lexicon.ABSTRACT or absent:
            return True
        if head in lexicon.MEDIA and self._text(place + 1) == "of":
            return head in ("scene", "view", "depiction", "closeup", "close-up", "shot")
        if head in lexicon.RELATIONS:
            return after_preposition or self._text(place + 1) in ("of", "in")
        if head in lexicon.TIMES:
            return after_preposition and self._text(place - 1) not in ("with", "of")
        return head == "hand" and self._text(place + 1) == "in"

    def _style_until_comma(self, place: int) -> None:
        """Take everything up to the next punctuation as style: "in the style of ...", "by ..."."""
        while place < len(self.chunks) and self._tag(place) != "stop":
            chunk = self.chunks[place]
            if isinstance(chunk, Phrase):
                self.style += [*chunk.modifiers, chunk.head]
            place += 1
        self.skip_to = place
