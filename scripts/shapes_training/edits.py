"""Rendered scenes in pairs: each as it is and with one thing changed, of training-split combinations only.

A colour, a shape, two colours or two places exchanged, a count, the background, a size; each side with a caption that is
true of it and a false one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from align.shapes.grammar import (
    BACKGROUNDS,
    COLOURS,
    MAX_OBJECTS,
    SHAPES,
    Caption,
    Phrase,
    Split,
    caption_split,
    parse,
)
from align.shapes.render import PICTURE
from scripts.shapes_training.scenes import (
    RADIUS,
    Scene,
    Thing,
    masks,
    only_trained_arrangements,
    render,
    scenes,
)

PATCHES = 8
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

Edit = Callable[[Caption, Scene, np.random.Generator], tuple[Caption, Scene | None] | None]


def _groups(caption: Caption) -> list[int]:
    """Phrase index of each object of a rendered scene."""
    return [k for k, phrase in enumerate(caption.phrases) for _ in range(phrase.count)]


def _with_phrase(caption: Caption, k: int, phrase: Phrase) -> Caption:
    phrases = list(caption.phrases)
    phrases[k] = phrase
    return replace(caption, phrases=tuple(phrases))


def _with_things(scene: Scene, caption: Caption) -> Scene:
    """The scene in the colours and shapes that the (edited) caption gives its objects, in order."""
    kinds = [caption.phrases[k] for k in _groups(caption)]
    things = [replace(t, colour=p.colour, shape=p.shape) for t, p in zip(scene.things, kinds, strict=True)]
    return replace(scene, things=tuple(things))


def recolour(caption: Caption, scene: Scene, rng: np.random.Generator) -> tuple[Caption, Scene | None]:
    """Another colour for one phrase."""
    k = int(rng.integers(len(caption.phrases)))
    other = [c for c in COLOURS if c != caption.phrases[k].colour]
    edited = _with_phrase(caption, k, replace(caption.phrases[k], colour=str(rng.choice(other))))
    return edited, _with_things(scene, edited)


def reshape(caption: Caption, scene: Scene, rng: np.random.Generator) -> tuple[Caption, Scene | None]:
    """Another shape for one phrase."""
    k = int(rng.integers(len(caption.phrases)))
    other = [s for s in SHAPES if s != caption.phrases[k].shape]
    edited = _with_phrase(caption, k, replace(caption.phrases[k], shape=str(rng.choice(other))))
    return edited, _with_things(scene, edited)


def swap_colours(
    caption: Caption, scene: Scene, rng: np.random.Generator
) -> tuple[Caption, Scene | None] | None:
    """Two phrases exchange their colours."""
    if len(caption.phrases) < 2:
        return None
    i, j = rng.choice(len(caption.phrases), 2, replace=False)
    first, second = caption.phrases[i], caption.phrases[j]
    if first.colour == second.colour or first.shape == second.shape:
        return None
    edited = _with_phrase(caption, i, replace(first, colour=second.colour))
    edited = _with_phrase(edited, j, replace(second, colour=first.colour))
    return edited, _with_things(scene, edited)


def swap_places(
    caption: Caption, scene: Scene, rng: np.random.Generator
) -> tuple[Caption, Scene | None] | None:
    """The two sides of a relation exchange their places, or the relation word is turned round."""
    if caption.relation not in OPPOSITE:
        return None
    edited = replace(caption, relation=OPPOSITE[caption.relation])
    if rng.random() < 0.5:  # The same fact in other words: arguments exchanged, the relation word kept.
        first, second = caption.phrases[:2]
        edited = replace(caption, phrases=(second, first, *caption.phrases[2:]))
    if caption.phrases[0].count != 1 or caption.phrases[1].count != 1:
        return edited, None
    a, b, *rest = scene.things

    def fits(t: Thing, o: Thing) -> bool:
        reach = 1.12 * t.radius + 1
        return reach <= min(o.x, o.y) and max(o.x, o.y) <= PICTURE - reach

    if not (fits(a, b) and fits(b, a)):
        return edited, None
    things = (replace(a, x=b.x, y=b.y), replace(b, x=a.x, y=a.y))
    if edited.phrases[0] != caption.phrases[0]:
        things = (things[1], things[0])
    return edited, replace(scene, things=(*things, *rest))


def recount(caption: Caption, scene: Scene, rng: np.random.Generator) -> tuple[Caption, Scene | None] | None:
    """One object less of a group, a phrase less, or (in words only) one object more."""
    k = int(rng.integers(len(caption.phrases)))
    phrase = caption.phrases[k]
    last = sum(p.count for p in caption.phrases[: k + 1]) - 1
    if phrase.count > 1:
        edited = _with_phrase(caption, k, replace(phrase, count=phrase.count - 1))
        return edited, replace(scene, things=scene.things[:last] + scene.things[last + 1 :])
    if caption.n_objects < MAX_OBJECTS and rng.random() < 0.5:
        return _with_phrase(caption, k, replace(phrase, count=phrase.count + 1)), None
    if len(caption.phrases) > 1 and k == len(caption.phrases) - 1:
        relation = caption.relation if k == 2 else None
        edited = replace(caption, phrases=caption.phrases[:-1], relation=relation)
        return edited, replace(scene, things=scene.things[:last])
    return None


def rebackground(
    caption: Caption, scene: Scene, rng: np.random.Generator
) -> tuple[Caption, Scene | None] | None:
    """Another background, where the caption names one."""
    if caption.background is None:
        return None
    other = str(rng.choice([b for b in BACKGROUNDS if b != caption.background]))
    return replace(caption, background=other), replace(scene, background=other)


def resize(caption: Caption, scene: Scene, rng: np.random.Generator) -> tuple[Caption, Scene | None] | None:
    """A small group becomes large in words, a large one small in the picture too."""
    named = [k for k, phrase in enumerate(caption.phrases) if phrase.size]
    if not named:
        return None
    k = int(rng.choice(named))
    edited = _with_phrase(
        caption,
        k,
        replace(caption.phrases[k], size="small" if caption.phrases[k].size == "large" else "large"),
    )
    if caption.phrases[k].size == "small":
        return edited, None
    things = [
        replace(t, radius=float(rng.uniform(*RADIUS["small"]))) if g == k else t
        for t, g in zip(scene.things, _groups(caption), strict=True)
    ]
    return edited, replace(scene, things=tuple(things))


EDITS: tuple[Edit, ...] = (
    recolour,
    reshape,
    swap_colours,
    swap_places,
    recount,
    rebackground,
    resize,
)
EDIT_SHARES = np.array([0.22, 0.22, 0.14, 0.22, 0.1, 0.06, 0.04])


def edit(
    caption: Caption, scene: Scene, rng: np.random.Generator, split: Split, *, words_only: bool = False
) -> tuple[Caption, Scene | None]:
    """One random edit that makes the caption false of the scene; both results stay in the split.

    Args:
        caption: a caption true of ``scene``.
        scene: the scene.
        rng: source of randomness.
        split: split of the caption.  Edits that would show or name anything of another split are drawn again,
            so that no held-out combination is ever learned as a mistake.
        words_only: whether an edited caption without an edited scene will do.

    Returns:
        The edited caption, and the scene of which it is true (``None`` if there is none).
    """
    for _ in range(200):
        found = EDITS[int(rng.choice(len(EDITS), p=EDIT_SHARES))](caption, scene, rng)
        if found is None or parse(found[0].text()) is None:
            continue
        if caption_split(found[0]) != split:
            continue
        if words_only:
            return found
        if found[1] is not None and (split != "train" or only_trained_arrangements(list(found[1].things))):
            return found
    return rebackground_always(caption, scene)


def rebackground_always(caption: Caption, scene: Scene) -> tuple[Caption, Scene]:
    """The edit of last resort: name a background that is not there."""
    other = next(name for name in BACKGROUNDS if name != scene.background)
    return replace(caption, background=other), replace(scene, background=other)


@dataclass
class Edits:
    """``n`` scenes, each as it is (side 0) and edited (side 1).

    Attributes:
        pictures: (n, 2, 64, 64, 3) uint8.
        captions: (n, 2) str, each true of its picture and false of the other.
        negatives: (n, 2) str, another caption false of each picture.
        things: (n, 2, 3, 5) float32: colour and shape index (-1 for none), centre x and y and half-extent in
            pixels.
        cells: (n, 2, 3, 64) uint8: share (0..255) of each object in each of the 8x8 patches.
        backgrounds: (n, 2) int64 index.
    """

    pictures: np.ndarray
    captions: np.ndarray
    negatives: np.ndarray
    things: np.ndarray
    cells: np.ndarray
    backgrounds: np.ndarray

    def __len__(self) -> int:
        return len(self.captions)


@dataclass(frozen=True)
class Side:
    """One side of a pair: a true caption, the scene it is true of, its picture, and a false caption."""

    caption: Caption
    scene: Scene
    picture: npt.NDArray[np.uint8]
    negative: Caption


def assemble(pairs: Sequence[tuple[Side, Side]]) -> Edits:
    """Pairs as arrays."""
    number = len(pairs)
    found = Edits(
        pictures=np.zeros((number, 2, PICTURE, PICTURE, 3), np.uint8),
        captions=np.array([[side.caption.text() for side in pair] for pair in pairs]),
        negatives=np.array([[side.negative.text() for side in pair] for pair in pairs]),
        things=np.full((number, 2, MAX_OBJECTS, 5), -1, np.float32),
        cells=np.zeros((number, 2, MAX_OBJECTS, PATCHES * PATCHES), np.uint8),
        backgrounds=np.zeros((number, 2), np.int64),
    )
    for k, pair in enumerate(pairs):
        for s, side in enumerate(pair):
            shown = side.scene
            found.pictures[k, s] = side.picture
            found.backgrounds[k, s] = list(BACKGROUNDS).index(shown.background)
            shares = masks(shown, PATCHES).reshape(len(shown.things), -1)
            found.cells[k, s, : len(shown.things)] = np.round(255 * shares)
            for t, thing in enumerate(shown.things):
                found.things[k, s, t] = row(thing)
    return found


def edits(split: Split, number: int, seed: int, folder: Path) -> Edits:
    """``number`` rendered pairs of a split, made once (3 ms each) and kept in ``folder``."""
    path = folder / f"edits-{split}-{number}-{seed}.npz"
    if path.exists():
        with np.load(path, allow_pickle=False) as store:
            return Edits(**{name: store[name] for name in store.files})
    rng = np.random.default_rng([seed, 5])

    def side(caption: Caption, scene: Scene) -> Side:
        return Side(caption, scene, render(scene), false_caption(caption, scene, rng, split))

    pairs = []
    for caption, scene in islice(scenes(split, seed), number):
        edited_caption, edited_scene = edit(caption, scene, rng, split)
        assert edited_scene is not None
        pairs.append((side(caption, scene), side(edited_caption, edited_scene)))
    made = assemble(pairs)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(path, **vars(made))
    return made


def false_caption(caption: Caption, scene: Scene, rng: np.random.Generator, split: Split) -> Caption:
    """A caption of the split that is one edit away from the truth about a scene."""
    return edit(caption, scene, rng, split, words_only=True)[0]


def row(thing: Thing) -> tuple[float, ...]:
    """An object as numbers: colour and shape index, centre and half-extent in pixels."""
    return (list(COLOURS).index(thing.colour), SHAPES.index(thing.shape), thing.x, thing.y, thing.radius)
