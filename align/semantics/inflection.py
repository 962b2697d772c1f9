"""Simple English inflections: whether two words are forms of one noun, verb or spelling."""

from __future__ import annotations

import re
from functools import lru_cache

IRREGULAR = {
    "men": "man", "women": "woman", "children": "child", "people": "person", "feet": "foot", "teeth": "tooth",
    "geese": "goose", "mice": "mouse", "oxen": "ox", "leaves": "leaf", "knives": "knife", "wolves": "wolf",
    "shelves": "shelf", "loaves": "loaf", "halves": "half", "scarves": "scarf", "calves": "calf",
    "hooves": "hoof", "cacti": "cactus", "fungi": "fungus",
}  # fmt: skip
"""Plurals that no rule makes, by plural."""


@lru_cache(maxsize=4096)
def singulars(word: str) -> frozenset[str]:
    """The forms that a lower-case word may be the plural of, itself too."""
    found = {word, IRREGULAR.get(word, word)}
    for plural, singular in IRREGULAR.items():
        if word.endswith(plural) and plural in ("men", "women", "children"):  # firemen, grandchildren
            found.add(word.removesuffix(plural) + singular)
    if word.endswith("ies") and len(word) > 4:
        found.add(word[:-3] + "y")
    if word.endswith(("ses", "xes", "zes", "ches", "shes", "oes")) and len(word) > 4:
        found.add(word[:-2])
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        found.add(word[:-1])
    return frozenset(found)


def same_number_aside(one: str, two: str) -> bool:
    """Whether two lower-case words differ at most by singular and plural."""
    return one == two or not singulars(one).isdisjoint(singulars(two))


@lru_cache(maxsize=4096)
def stems(word: str) -> frozenset[str]:
    """What a lower-case word may be a form of, by the endings ``-s``, ``-ed``, ``-ing`` and ``-ly``; itself too."""
    found = set(singulars(word))
    for ending in ("ing", "ed"):
        stem = word.removesuffix(ending)
        if stem != word and len(stem) >= 3:
            found |= _without_suffix(stem)
    if word.endswith("ly") and len(word) > 4:
        found |= {word[:-2], word[:-2] + "le", word[:-3] + "y" if word[-3] == "i" else word[:-2]}
    return frozenset(found)


_SHORT = re.compile(r"[^aeiou]*[aeiou][^aeiouwxy]")
"""One syllable that would double its last letter: what loses an e instead is another word (star, stare)."""


def _without_suffix(stem: str) -> set[str]:
    """Words that may have had this stem before ``-ed`` or ``-ing``."""
    if stem[-1] == stem[-2]:
        return {stem, stem[:-1]}  # dressing, running
    if _SHORT.fullmatch(stem):
        return {stem + "e"}  # staring, striped
    return {stem, stem + "e"}


def same_stem(one: str, two: str) -> bool:
    """Whether two lower-case words are likely forms of one: colour/coloured, holds/holding, wave/waves."""
    return not stems(one).isdisjoint(stems(two))
