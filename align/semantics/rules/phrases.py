"""Noun phrases: which words belong to one noun, and what stands between phrases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from align.semantics.rules import lexicon
from align.semantics.rules.words import Word

MODIFIERS = ("adjective", "participle", "gerund", "number")


@dataclass(frozen=True)
class Phrase:
    """A noun, by its index, with the words before it that describe it; ``determined`` if an article begins it."""

    head: int
    modifiers: tuple[int, ...]
    start: int
    end: int
    determined: bool


@dataclass(frozen=True)
class Other:
    """A word outside noun phrases."""

    place: int


Chunk = Phrase | Other


def chunks(words: Sequence[Word]) -> list[Chunk]:
    """The words as noun phrases and what is between them, in order."""
    found: list[Chunk] = []
    place = 0
    while place < len(words):
        phrase = None if _follows_its_noun(words, place, found) else _phrase(words, place)
        if phrase is None:
            found.append(Other(place))
            place += 1
        else:
            found.append(phrase)
            place = phrase.end
    return found


def _follows_its_noun(words: Sequence[Word], place: int, found: Sequence[Chunk]) -> bool:
    """Whether a gerund or participle describes the noun before it: "a frog holding", "a hill, covered"."""
    tag = words[place].tag
    if tag not in ("gerund", "participle") or not found:
        return False
    last = found[-1]
    if isinstance(last, Other) and words[last.place].tag in ("adverb", "auxiliary") and len(found) > 1:
        return words[last.place].tag == "auxiliary" or isinstance(found[-2], Phrase)
    if isinstance(last, Other) and words[last.place].text == ",":
        # After a comma "glowing eyes" is a phrase, "glowing in the dark" is not.
        return place + 1 >= len(words) or words[place + 1].tag in ("preposition", "determiner", "stop")
    return isinstance(last, Phrase)


def _phrase(words: Sequence[Word], start: int) -> Phrase | None:
    """The noun phrase that begins at a word, if one does."""
    place = start
    determined = False
    modifiers: list[int] = []
    while place < len(words):
        word = words[place]
        if word.tag == "determiner" and not modifiers:
            determined = True
        elif word.tag in MODIFIERS:
            modifiers.append(place)
        elif word.tag == "noun":
            end = _nouns_end(words, place)
            if end < len(words) and words[end].tag == "participle" and _leads_to_noun(words, end + 1):
                modifiers += range(place, end + 1)  # "wine bottle shaped candle"
                place = end + 1
                continue
            return Phrase(end - 1, (*modifiers, *range(place, end - 1)), start, end, determined)
        elif word.tag == "adverb":
            if place + 1 >= len(words) or words[place + 1].tag not in (*MODIFIERS, "adverb"):
                break
        elif modifiers and (word.tag == "conjunction" or (word.text == "," and determined)):
            if not _modifiers_to_noun(words, place + 1):
                break
        else:
            break
        place += 1
    return _promoted(words, start, place, modifiers, determined)


def _nouns_end(words: Sequence[Word], first: int) -> int:
    """Where a run of nouns ends; in "a circle left of a star" before the place that is told."""
    place = first
    while place < len(words) and words[place].tag == "noun":
        after = words[place + 1].text if place + 1 < len(words) else ""
        if place > first and words[place].text in lexicon.RELATIONS and after == "of":
            break
        place += 1
    return place


def _leads_to_noun(words: Sequence[Word], place: int) -> bool:
    """Whether adjectives, if any, and then a noun come next."""
    while place < len(words) and words[place].tag in ("adjective", "participle"):
        place += 1
    return place < len(words) and words[place].tag == "noun"


def _modifiers_to_noun(words: Sequence[Word], place: int) -> bool:
    """Whether at least one modifier and then a noun come next, so that a list of modifiers goes on."""
    first = place
    while place < len(words) and (
        words[place].tag in (*MODIFIERS, "adverb", "conjunction") or words[place].text == ","
    ):
        place += 1
    return place > first and place < len(words) and words[place].tag == "noun"


def _promoted(
    words: Sequence[Word], start: int, end: int, modifiers: list[int], determined: bool
) -> Phrase | None:
    """A phrase without a noun whose last word may well be one: "an orange", "the elderly", "a clearing"."""
    if not modifiers or modifiers[-1] != end - 1:
        return None
    last = words[modifiers[-1]]
    after = words[end].tag if end < len(words) else "stop"
    known = last.text in lexicon.NAMED_BOTH
    guessed = determined and not last.sure and last.tag in ("adjective", "gerund") and after != "conjunction"
    if last.tag in ("adjective", "gerund") and ((known and determined) or guessed):
        return Phrase(modifiers[-1], tuple(modifiers[:-1]), start, end, determined)
    return None
