"""Words of a prompt with their class, by word lists and endings."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from align.semantics.graph import Span
from align.semantics.rules import lexicon

Tag = Literal[
    "determiner", "number", "preposition", "conjunction", "pronoun", "auxiliary", "adverb", "adjective", "participle",
    "gerund", "verb", "noun", "possessive", "stop",
]  # fmt: skip
"""A ``participle`` is a passive one (covered), a ``gerund`` any form in -ing; ``stop`` is punctuation."""

_TOKEN = re.compile(r"['\u2019]s\b|(?i:close up)\b|[^\W_]+(?:[-'\u2019](?!s\b)[^\W_]+)*|[^\w\s]|_")
_QUOTED = re.compile(r'"[^"]*"|\u201c[^\u201d]*\u201d')


@dataclass(frozen=True)
class Word:
    """A lower-case word, or a punctuation mark; ``sure`` if a word list says its class, rather than an ending."""

    text: str
    span: Span
    tag: Tag
    sure: bool = True
    capital: bool = False


def read_words(prompt: str) -> list[Word]:
    """The words of a prompt; text in double quotes is not described but written, so it is one stop."""
    quoted = [found.span() for found in _QUOTED.finditer(prompt)]
    words: list[Word] = []
    for found in _TOKEN.finditer(prompt):
        if any(start <= found.start() < end for start, end in quoted):
            if not words or words[-1].text != '"':
                words.append(Word('"', found.span(), "stop"))
            continue
        text = found[0].lower().replace("\u2019", "'").replace(" ", "-")
        tag, sure = classify(text)
        words.append(Word(text, found.span(), tag, sure, found[0][0].isupper()))
    for place in range(len(words)):
        words[place] = _in_context(words, place)
    return words


def classify(text: str) -> tuple[Tag, bool]:
    """Class of a lower-case word by itself, and whether a word list says so."""
    if text == "'s":
        return "possessive", True
    if not text[0].isalnum():
        return ("conjunction" if text == "&" else "stop"), True
    listed: tuple[tuple[frozenset[str], Tag], ...] = (
        (lexicon.DETERMINERS, "determiner"),
        (lexicon.NUMBERS, "number"),
        (lexicon.CONJUNCTIONS, "conjunction"),
        (lexicon.PREPOSITIONS, "preposition"),
        (lexicon.PRONOUNS, "pronoun"),
        (lexicon.AUXILIARIES, "auxiliary"),
        (lexicon.ADVERBS, "adverb"),
        (lexicon.ADJECTIVES, "adjective"),
        (lexicon.PARTICIPLES, "participle"),
        (lexicon.VERBS, "verb"),
        (lexicon.NOUNS | lexicon.MEDIA | lexicon.QUALITY, "noun"),
    )
    for words, tag in listed:
        if text in words:
            return tag, True
    if text.isdigit():
        return "number", True
    return _by_ending(text), False


def _by_ending(text: str) -> Tag:
    last = text.rpartition("-")[2]
    if "-" in text:
        # "moss-covered", "fire-breathing", "high-tech": before a noun all describe it.
        if last.endswith(("ed", "ing")) or last in lexicon.PARTICIPLES:
            return "participle"
        if last in lexicon.ADJECTIVES or text.partition("-")[0] in lexicon.ADJECTIVES:
            return "adjective"
        return "noun"
    if text.endswith("ly") and len(text) > 4 and text not in lexicon.LY_NOT_ADVERB:
        return "adverb"
    if text.endswith("ing") and len(text) > 4:
        return "gerund"
    if text.endswith("ed") and len(text) > 4:
        return "participle"
    if text.endswith(lexicon.ADJECTIVE_ENDINGS) and len(text) > 4:
        return "adjective"
    return "noun"


def _in_context(words: list[Word], place: int) -> Word:
    """A word whose neighbours tell another class than it has by itself."""
    word = words[place]
    before = words[place - 1] if place else None
    after = words[place + 1] if place + 1 < len(words) else None
    tag: Tag = word.tag
    if word.text == "that" and before is not None and before.tag in ("noun", "participle"):
        tag = "pronoun"  # "a sign that says"
    elif word.tag == "verb" and (before is None or before.tag in ("determiner", "adjective", "number")):
        tag = "noun"  # "a stand", "red glow"
    elif _finite(words, place):
        tag = "verb"
    elif word.text == "one" and after is not None and after.tag in ("stop", "verb"):
        tag = "pronoun"
    return replace(word, tag=tag)


def _finite(words: list[Word], place: int) -> bool:
    """Whether a word in -s after a singular noun is likely its verb: "a knight attacks the dragon"."""
    word = words[place]
    if word.tag != "noun" or word.sure or place + 1 >= len(words) or place == 0:
        return False
    if not word.text.endswith("s") or word.text.endswith(("ss", "us", "is")):
        return False
    before, after = words[place - 1], words[place + 1]
    if before.tag != "noun" or before.text.endswith("s"):
        return False
    if after.tag not in ("determiner", "preposition", "adverb") or after.text in ("of", "and", "with"):
        return False
    start = place - 1
    while start and words[start - 1].tag in ("noun", "adjective", "participle", "gerund", "number"):
        start -= 1
    return start > 0 and words[start - 1].text in ("a", "an", "one")
