"""Captions of the shapes world: vocabulary, syntax tree, text, parsing and the held-out split.

A caption is one to three phrases ("a small red circle", "two blue stars") of at most three objects in
all; the first two phrases are joined by a relation, a third by "and"; a background may be named::

    two red circles above a large blue square on a gray background

The split is **by combination**: some colour-shape pairs and some (shape, axis, shape) arrangements are never
rendered in training, so test prompts ask for things the model has not seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 35, 40),
    "orange": (245, 140, 25),
    "yellow": (248, 225, 55),
    "green": (45, 160, 70),
    "cyan": (60, 205, 225),
    "blue": (40, 75, 205),
    "purple": (130, 50, 165),
    "pink": (248, 140, 200),
}
"""Object colours, name to sRGB (0..255)."""

BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (245, 245, 245),
    "gray": (128, 128, 128),
    "black": (22, 22, 22),
}
"""Background colours, name to sRGB (0..255); never object colours."""

SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "cross", "ring")
SIZES: tuple[str, ...] = ("small", "large")
RELATIONS: tuple[str, ...] = ("left of", "right of", "above", "below", "and")
COUNTS: dict[str, int] = {"a": 1, "two": 2, "three": 3}
MAX_OBJECTS = 3

Split = Literal["train", "val", "test"]
Axis = Literal["left", "above"]


@dataclass(frozen=True)
class Phrase:
    """Some equal objects: ``count`` of one colour and shape, with an optional size word."""

    colour: str
    shape: str
    count: int = 1
    size: str | None = None

    def text(self) -> str:
        """The phrase in words, such as "two small red circles"."""
        number = {1: "a", 2: "two", 3: "three"}[self.count]
        noun = self.shape if self.count == 1 else _plural(self.shape)
        if number == "a" and (self.size or self.colour)[0] in "aeiou":
            number = "an"
        return " ".join(word for word in (number, self.size, self.colour, noun) if word)


@dataclass(frozen=True)
class Caption:
    """What a picture should show.

    ``relation`` joins the first two phrases (``None`` for a single one); a third is joined by "and".
    """

    phrases: tuple[Phrase, ...]
    relation: str | None = None
    background: str | None = None

    def text(self) -> str:
        """The caption in words, exactly as the models were trained on it."""
        words = self.phrases[0].text()
        if len(self.phrases) > 1:
            words += f" {self.relation} {self.phrases[1].text()}"
        if len(self.phrases) > 2:
            words += f" and {self.phrases[2].text()}"
        return f"{words} on a {self.background} background" if self.background else words

    @property
    def n_objects(self) -> int:
        return sum(phrase.count for phrase in self.phrases)


def _plural(shape: str) -> str:
    return shape + ("es" if shape.endswith("ss") else "s")


NOUNS = {_plural(shape): shape for shape in SHAPES} | {shape: shape for shape in SHAPES}
_PHRASE = re.compile(
    r"(?P<count>an?|two|three)(?: (?P<size>small|large))? (?P<colour>{}) (?P<noun>{})".format(
        "|".join(COLOURS), "|".join(sorted(NOUNS, key=len, reverse=True))
    )
)
_JOIN = re.compile(r" (?P<relation>{}) ".format("|".join(RELATIONS)))
_BACKGROUND = re.compile(r" on an? (?P<background>{}) background$".format("|".join(BACKGROUNDS)))


def parse(text: str) -> Caption | None:
    """Read a caption of this grammar; ``None`` for any other text (case and outer spaces are ignored)."""
    rest = " ".join(text.lower().split()).rstrip(".")
    background = None
    if found := _BACKGROUND.search(rest):
        background, rest = found["background"], rest[: found.start()]
    phrases: list[Phrase] = []
    joins: list[str] = []
    position = 0
    while found := _PHRASE.match(rest, position):
        count = COUNTS.get(found["count"], 1)
        noun = found["noun"]
        if (count == 1) != (noun in SHAPES):
            return None
        phrases.append(Phrase(found["colour"], NOUNS[noun], count, found["size"]))
        position = found.end()
        if position == len(rest):
            break
        join = _JOIN.match(rest, position)
        if join is None:
            return None
        joins.append(join["relation"])
        position = join.end()
    else:
        return None
    caption = Caption(tuple(phrases), joins[0] if joins else None, background)
    kinds = {(phrase.colour, phrase.shape) for phrase in phrases}
    if len(phrases) > 3 or joins[1:] not in ([], ["and"]) or caption.n_objects > MAX_OBJECTS:
        return None
    return caption if len(kinds) == len(phrases) else None


def pair_split(colour: str, shape: str) -> Split:
    """Which split a colour-shape pair belongs to: 36 train, 6 validation, 6 test."""
    code = (list(COLOURS).index(colour) + 3 * SHAPES.index(shape)) % len(COLOURS)
    return "test" if code == 0 else "val" if code == 4 else "train"


def arrangement_split(first: str, axis: Axis, second: str) -> Split:
    """Which split "``first`` is left of / above ``second``" (two shapes) belongs to: 48, 12 and 12 of 72."""
    code = (SHAPES.index(first) + 2 * SHAPES.index(second) + (3 if axis == "above" else 0)) % 6
    return "test" if code == 0 else "val" if code == 4 else "train"


def canonical_arrangement(first: str, relation: str, second: str) -> tuple[str, Axis, str] | None:
    """The arrangement that a relation asks for, with "right of" and "below" turned round; ``None`` for "and"."""
    if relation == "and":
        return None
    if relation in ("right of", "below"):
        first, second = second, first
    return first, "left" if relation in ("left of", "right of") else "above", second


def caption_split(caption: Caption) -> Split | None:
    """The split of a whole caption; ``None`` for one that mixes held-out validation and test parts.

    A train caption has train parts only.  A test caption has a test pair and, if it names a relation,
    a test arrangement; the rest may be anything but validation parts.
    """
    pairs = {pair_split(phrase.colour, phrase.shape) for phrase in caption.phrases}
    shapes = [phrase.shape for phrase in caption.phrases]
    canonical = canonical_arrangement(shapes[0], caption.relation, shapes[1]) if caption.relation else None
    arrangement = arrangement_split(*canonical) if canonical else None
    if pairs == {"train"} and arrangement in (None, "train"):
        return "train"
    for split in ("val", "test"):
        if split in pairs and pairs <= {"train", split} and arrangement in (None, split):
            return split
    return None


def random_caption(rng: np.random.Generator, kinds: int, *, counts: bool = True) -> Caption:
    """A random caption with ``kinds`` phrases (1 to 3) from all combinations, whatever their split."""
    total = kinds
    phrases: list[Phrase] = []
    while len(phrases) < kinds:
        count = 1
        if counts and total < MAX_OBJECTS and rng.random() < 0.25:
            count = int(rng.integers(2, MAX_OBJECTS - total + 2))
            total += count - 1
        size = str(rng.choice(SIZES)) if rng.random() < 0.35 else None
        phrase = Phrase(str(rng.choice(list(COLOURS))), str(rng.choice(SHAPES)), count, size)
        if all((phrase.colour, phrase.shape) != (other.colour, other.shape) for other in phrases):
            phrases.append(phrase)
        else:
            total -= count - 1
    relation = None
    if kinds > 1:
        relation = "and" if rng.random() < 0.3 else str(rng.choice(RELATIONS[:4]))
    background = str(rng.choice(list(BACKGROUNDS))) if rng.random() < 0.8 else None
    return Caption(tuple(phrases), relation, background)


def captions(
    split: Split, seed: int, kinds: int | tuple[float, float, float] = (0.3, 0.5, 0.2), *, counts: bool = True
) -> Iterator[Caption]:
    """An endless stream of captions of one split.

    ``kinds`` is the number of phrases, or the probabilities of one, two and three; with ``counts`` they may ask for two or
    three equal objects.
    """
    rng = np.random.default_rng(seed)
    while True:
        number = kinds if isinstance(kinds, int) else int(rng.choice(3, p=kinds)) + 1
        caption = random_caption(rng, number, counts=counts)
        while caption_split(caption) != split:
            caption = random_caption(rng, number, counts=counts)
        yield caption


def distinct_captions(
    split: Split, number: int, seed: int, kinds: int, *, counts: bool = True
) -> list[Caption]:
    """``number`` different captions of one split (fewer only if the split has no more)."""
    found: dict[str, Caption] = {}
    for tries, caption in enumerate(captions(split, seed, kinds, counts=counts)):
        found.setdefault(caption.text(), caption)
        if len(found) == number or tries > 200 * number:
            break
    return list(found.values())
