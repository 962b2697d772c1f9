"""What generated pictures show, in words: captions for the base CLIP and for comparisons of captions.

The checker reads a picture; where it shows one to three whole objects of training combinations, that is a scene with a
caption, as good as a rendered one, but in the generator's own hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from align.shapes.checker import LARGE_ABOVE, SMALL_BELOW, Found, Segmentation, relation_holds
from align.shapes.grammar import (
    COLOURS,
    MAX_OBJECTS,
    RELATIONS,
    Caption,
    Phrase,
    caption_split,
    pair_split,
    parse,
)
from align.shapes.render import PICTURE
from scripts.shapes_training.edits import Edits, Side, assemble, false_caption
from scripts.shapes_training.judged import Judged
from scripts.shapes_training.scenes import Scene, Thing, only_trained_arrangements


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


def room(seen: Segmentation) -> tuple[int, int, int, int]:
    """How far a picture can be moved left, right, up and down before anything leaves it, in pixels."""
    reach = np.array([(t.x, t.y, 1.12 * t.radius + 1) for t in seen.things]).reshape(-1, 3)
    if not len(reach):
        return 0, 0, 0, 0
    low = (reach[:, :2] - reach[:, 2:]).min(axis=0).clip(0)
    high = (PICTURE - reach[:, :2] - reach[:, 2:]).min(axis=0).clip(0)
    return int(low[0]), int(high[0]), int(low[1]), int(high[1])


def moved(
    picture: npt.NDArray[np.uint8], seen: Segmentation, rng: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], int, int]:
    """A (64, 64, 3) picture moved at random as far as there is room, and how far right and down.

    What it shows, for any caption, stays as it was; where it lies on the grid of patches does not.
    """
    left, right, up, down = room(seen)
    dx, dy = int(rng.integers(-left, right + 1)), int(rng.integers(-up, down + 1))
    columns = (np.arange(PICTURE) - dx).clip(0, PICTURE - 1)
    rows = (np.arange(PICTURE) - dy).clip(0, PICTURE - 1)
    return picture[rows][:, columns], dx, dy


Names = Mapping[str, str]
"""Colour names to other colour names."""


def recolouring(kinds: Iterable[tuple[str | None, str | None]], rng: np.random.Generator) -> dict[str, str]:
    """A random permutation of the colours under which no (colour, shape) becomes a held-out one; at worst the same."""
    wanted = {(colour, shape) for colour, shape in kinds if colour is not None and shape is not None}
    names = list(COLOURS)
    for _ in range(20):
        mapping = dict(zip(names, (str(name) for name in rng.permutation(names)), strict=True))
        if all(pair_split(mapping[colour], shape) == "train" for colour, shape in wanted):
            return mapping
    return {name: name for name in names}


def recoloured(picture: npt.NDArray[np.uint8], seen: Segmentation, mapping: Names) -> npt.NDArray[np.uint8]:
    """A (64, 64, 3) picture with the colours of its things exchanged; edges and flaws stay as they are.

    A pixel is taken as background plus a share of the colour that it fits best.
    """
    old = [colour for colour in dict.fromkeys(thing.colour for thing in seen.things) if colour is not None]
    if not old:
        return picture
    background = np.array(seen.background_colour, np.float32)
    pixels = picture.astype(np.float32) - background
    ways = np.array([COLOURS[colour] for colour in old], np.float32) - background
    new = np.array([COLOURS[mapping[colour]] for colour in old], np.float32) - background
    shares = np.clip(pixels @ ways.T / np.square(ways).sum(axis=1), 0, 1)
    misfit = np.square(pixels[..., None, :] - shares[..., None] * ways).sum(axis=-1)
    best = misfit.argmin(axis=-1)
    share = np.take_along_axis(shares, best[..., None], axis=-1)
    moved: npt.NDArray[np.uint8] = np.clip(
        np.round(background + pixels + share * (new - ways)[best]), 0, 255
    ).astype(np.uint8)
    return moved


def renamed(caption: Caption, mapping: Names) -> Caption:
    """A caption in other colours."""
    phrases = tuple(replace(phrase, colour=mapping[phrase.colour]) for phrase in caption.phrases)
    return replace(caption, phrases=phrases)


def seen_in(seen: Segmentation, mapping: Names) -> Segmentation:
    """What the checker would read in the recoloured picture."""
    things = tuple(
        replace(thing, colour=None if thing.colour is None else mapping[thing.colour])
        for thing in seen.things
    )
    return replace(seen, things=things)


def shown(data: Judged, seed: int, passes: int = 8) -> Edits:
    """Neighbouring generated pictures in pairs, as ``scripts.shapes_training.edits.edits`` makes of rendered ones.

    Every picture that can be described is in ``passes`` pairs, each time in another place, in other colours and in other
    words, mostly beside another picture of its prompt.
    """
    rng = np.random.default_rng([seed, 17])

    def side(group: int, member: int) -> Side | None:
        seen = data.seen[group][member]
        mapping = recolouring(((thing.colour, thing.shape) for thing in seen.things), rng)
        found = describe(seen_in(seen, mapping), rng)
        if found is None:
            return None
        caption, scene = found
        picture, dx, dy = moved(recoloured(data.pictures[group, member], seen, mapping), seen, rng)
        things = tuple(replace(thing, x=thing.x + dx, y=thing.y + dy) for thing in scene.things)
        scene = replace(scene, things=things)
        return Side(caption, scene, picture, false_caption(caption, scene, rng, "train"))

    pairs: list[tuple[Side, Side]] = []
    for k in range(passes):
        found = [side(g, j) for g in range(len(data)) for j in range(data.pictures.shape[1])]
        described = [one for one in found if one is not None][k % 2 :]
        pairs += zip(described[::2], described[1::2], strict=False)
    return assemble(pairs)
