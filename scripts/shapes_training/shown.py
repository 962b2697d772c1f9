"""What generated pictures show, in words: captions for the base CLIP and for comparisons of captions.

The checker reads a picture; where it shows one to three whole objects of training combinations, that is a scene with a
caption, as good as a rendered one, but in the generator's own hand.
"""

from __future__ import annotations

import numpy as np

from align.shapes.checker import LARGE_ABOVE, SMALL_BELOW, Found, Segmentation, relation_holds
from align.shapes.grammar import MAX_OBJECTS, RELATIONS, Caption, Phrase, caption_split, parse
from align.shapes.render import Scene, Thing, only_trained_arrangements
from scripts.shapes_training.edits import Edits, Side, assemble, false_caption
from scripts.shapes_training.judged import Judged


def _size(things: list[Found], rng: np.random.Generator) -> str | None:
    """A size word that is true of all, now and then."""
    if rng.random() > 0.5:
        return None
    if all(thing.radius < SMALL_BELOW for thing in things):
        return "small"
    return "large" if all(thing.radius > LARGE_ABOVE for thing in things) else None


def describe(seen: Segmentation, rng: np.random.Generator) -> tuple[Caption, Scene] | None:
    """A random true caption of what is seen, and the scene; ``None`` if it is no scene of the training split."""
    if seen.background is None or not 1 <= len(seen.things) <= MAX_OBJECTS:
        return None
    kinds: dict[tuple[str, str], list[Found]] = {}
    for k in rng.permutation(len(seen.things)):
        thing = seen.things[k]
        if thing.colour is None or thing.shape is None:
            return None
        kinds.setdefault((thing.colour, thing.shape), []).append(thing)
    phrases = tuple(Phrase(*kind, len(things), _size(things, rng)) for kind, things in kinds.items())
    groups = list(kinds.values())
    relation = None
    if len(groups) > 1:
        true = [name for name in RELATIONS[:4] if relation_holds(name, groups[0], groups[1])]
        relation = str(rng.choice(true)) if true and rng.random() < 0.8 else "and"
    caption = Caption(phrases, relation, seen.background if rng.random() < 0.8 else None)
    things = tuple(
        Thing(kind[0], kind[1], thing.x, thing.y, thing.radius)
        for kind, group in kinds.items()
        for thing in group
    )
    if (
        caption_split(caption) != "train"
        or parse(caption.text()) != caption
        or not only_trained_arrangements(list(things))
    ):
        return None
    return caption, Scene(things, seen.background)


def shown(data: Judged, seed: int) -> Edits:
    """Neighbouring generated pictures in pairs, as :func:`scripts.shapes_training.edits.edits` makes of rendered ones.

    Every picture that can be described is in about two pairs, mostly with another picture of its prompt.
    """
    rng = np.random.default_rng([seed, 17])

    def side(group: int, member: int) -> Side | None:
        found = describe(data.seen[group][member], rng)
        if found is None:
            return None
        return Side(*found, data.pictures[group, member], false_caption(*found, rng, "train"))

    def described() -> list[Side]:
        found = [side(k, j) for k in range(len(data)) for j in range(data.pictures.shape[1])]
        return [one for one in found if one is not None]

    first, second = described(), described()
    pairs = [*zip(first[::2], first[1::2], strict=False), *zip(second[1::2], second[2::2], strict=False)]
    return assemble(pairs)
