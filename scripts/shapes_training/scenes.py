"""Scenes of the shapes world: anti-aliased 64x64 pictures of coloured shapes.

A ``Scene`` places objects; ``sample_scene`` draws one that a caption describes and that shows
nothing held out from training by accident; ``render`` turns it into pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from align.shapes.grammar import BACKGROUNDS, COLOURS, Axis, Caption, Split, arrangement_split, captions
from align.shapes.render import PICTURE, coverage

RADIUS: dict[str | None, tuple[float, float]] = {
    "small": (5.4, 6.8),
    None: (7.4, 10.4),
    "large": (11.0, 13.2),
}
"""Half-extent of an object in pixels, by size word."""

RELATION_RATIO = 0.75
"""In a rendered relation the offset across the axis is at most this share of that along it."""


class NoRoom(RuntimeError):
    """No scene was found for a caption: too many large objects, or an arrangement that is held out."""


@dataclass(frozen=True)
class Thing:
    """One object of a scene: colour and shape names, centre (x, y) and half-extent in pixels."""

    colour: str
    shape: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Scene:
    """Objects on a background."""

    things: tuple[Thing, ...]
    background: str


def render(scene: Scene) -> npt.NDArray[np.uint8]:
    """Draw a scene: (64, 64, 3) uint8 sRGB; later objects lie over earlier ones."""
    canvas = np.empty((PICTURE, PICTURE, 3), dtype=np.float32)
    canvas[:] = BACKGROUNDS[scene.background]
    for thing in scene.things:
        alpha = coverage(thing.shape, thing.x, thing.y, thing.radius)[..., None]
        canvas += alpha * (np.array(COLOURS[thing.colour], dtype=np.float32) - canvas)
    return np.round(canvas).astype(np.uint8)


def masks(scene: Scene, side: int) -> npt.NDArray[np.float32]:
    """Area share of each object in each cell of a ``side`` x ``side`` grid: (objects, side, side) in [0, 1]."""
    step = PICTURE // side
    stack = [coverage(thing.shape, thing.x, thing.y, thing.radius) for thing in scene.things]
    shares: npt.NDArray[np.float32] = np.stack(stack).reshape(-1, side, step, side, step).mean(axis=(2, 4))
    return shares


def dominant_arrangement(a: Thing, b: Thing) -> tuple[Thing, Axis, Thing]:
    """How two objects lie to each other: along the axis on which they are further apart."""
    dx, dy = b.x - a.x, b.y - a.y
    if abs(dx) >= abs(dy):
        return (a, "left", b) if dx >= 0 else (b, "left", a)
    return (a, "above", b) if dy >= 0 else (b, "above", a)


def _relation_holds(relation: str, first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two groups of centres, (n, 2) and (m, 2), show a relation clearly (for rendering)."""
    if relation == "and":
        return True
    axis = 0 if relation in ("left of", "right of") else 1
    if relation in ("right of", "below"):
        first, second = second, first
    gap = second[:, None, axis] - first[None, :, axis]
    mean = second.mean(axis=0) - first.mean(axis=0)
    return bool(gap.min() >= 7.0 and abs(mean[1 - axis]) <= RELATION_RATIO * mean[axis])


def sample_scene(caption: Caption, rng: np.random.Generator, split: Split | None = "train") -> Scene:
    """A random scene that the caption describes.

    Args:
        caption: what to show.
        rng: source of places, sizes and of a background the caption does not name.
        split: with "train", arrangements of two shapes that are held out never occur, named or not;
            ``None`` allows all.
    """
    background = caption.background or str(rng.choice(list(BACKGROUNDS)))
    group = [k for k, phrase in enumerate(caption.phrases) for _ in range(phrase.count)]
    for attempt in range(600):
        shrink = 1.0 if attempt < 60 else 0.92
        things: list[Thing] = []
        for k in group:
            phrase = caption.phrases[k]
            low, high = RADIUS[phrase.size]
            radius = rng.uniform(low, high) * (shrink if phrase.size != "small" else 1.0)
            x, y = rng.uniform(1.12 * radius + 1, PICTURE - 1.12 * radius - 1, size=2)
            if any(np.hypot(x - t.x, y - t.y) < 1.08 * (radius + t.radius) + 2 for t in things):
                break
            things.append(Thing(phrase.colour, phrase.shape, float(x), float(y), float(radius)))
        if len(things) < len(group):
            continue
        centres = np.array([(t.x, t.y) for t in things])
        members = [np.flatnonzero(np.array(group) == k) for k in range(len(caption.phrases))]
        if caption.relation and not _relation_holds(
            caption.relation, centres[members[0]], centres[members[1]]
        ):
            continue
        if split == "train" and not only_trained_arrangements(things):
            continue
        return Scene(tuple(things), background)
    raise NoRoom(f"no room for {caption.text()!r}")


def scenes(
    split: Split, seed: int, kinds: int | tuple[float, float, float] = (0.3, 0.5, 0.2)
) -> Iterator[tuple[Caption, Scene]]:
    """An endless stream of captions of a split with a scene for each; captions without room are skipped."""
    rng = np.random.default_rng([seed, 1])
    for caption in captions(split, seed, kinds):
        try:
            yield caption, sample_scene(caption, rng, "train" if split == "train" else None)
        except NoRoom:
            continue


def only_trained_arrangements(things: list[Thing]) -> bool:
    """Whether no two unlike objects lie in a held-out arrangement."""
    for i, a in enumerate(things):
        for b in things[:i]:
            if (a.colour, a.shape) == (b.colour, b.shape):
                continue
            first, axis, second = dominant_arrangement(a, b)
            if arrangement_split(first.shape, axis, second.shape) != "train":
                return False
    return True
