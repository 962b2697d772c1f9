"""Simple English inflections: whether two words are forms of one noun, verb or spelling."""

from __future__ import annotations

from functools import lru_cache

IRREGULAR = {
    "men": "man",
    "women": "woman",
    "children": "child",
    "people": "person",
    "feet": "foot",
    "teeth": "tooth",
    "geese": "goose",
    "mice": "mouse",
    "oxen": "ox",
    "leaves": "leaf",
    "knives": "knife",
    "wolves": "wolf",
    "shelves": "shelf",
    "loaves": "loaf",
    "halves": "half",
    "scarves": "scarf",
    "calves": "calf",
    "hooves": "hoof",
    "cacti": "cactus",
    "fungi": "fungus",
}
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
    """What may be left of a lower-case word without ``-s``, ``-ed``, ``-ing``, ``-ly`` and a final ``e``."""
    found = set(singulars(word))
    for ending in ("ing", "ed", "ly"):
        stem = word.removesuffix(ending)
        if stem != word and len(stem) >= 3:
            found.add(stem)
            if stem[-1] == stem[-2]:  # running, striped against stripping
                found.add(stem[:-1])
    return frozenset({one.removesuffix("e") if len(one) > 3 else one for one in found})


def same_stem(one: str, two: str) -> bool:
    """Whether two lower-case words are likely forms of one: colour/coloured, holds/holding, wave/waves."""
    return not stems(one).isdisjoint(stems(two))
