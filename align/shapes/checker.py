"""The exact judge: what a picture shows, and which parts of a caption it fulfils.

``segment`` reads a picture without knowing the caption: background, then connected areas that differ from
it, each with its colour (nearest palette colour of its solid pixels) and its shape (best overlap with the
renderer's own shapes of equal area at the same place).  ``check`` compares that with a caption.
No method ever optimises this judge.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from align.shapes.grammar import BACKGROUNDS, COLOURS, SHAPES, Caption
from align.shapes.render import coverage

FOREGROUND = 40.0
"""A pixel further than this from the background (Euclidean, sRGB 0..255) belongs to something."""
MIN_AREA = 18.0
"""Smallest object in pixels; what is smaller is a speck (the smallest rendered star has about 33)."""
MIN_OVERLAP = 0.66
"""Least intersection over union with the best shape; below it the thing has no shape."""
COLOUR_REACH = 75.0
"""Furthest a thing's colour may be from the palette colour that it is called."""
BACKGROUND_REACH = 55.0
"""The same for the background."""
SMALL_BELOW, LARGE_ABOVE = 8.0, 9.6
"""A "small" thing has a smaller, a "large" one a larger half-extent, in pixels."""

_COLOUR_NAMES = tuple(COLOURS)
_COLOUR_VALUES = np.array([COLOURS[name] for name in _COLOUR_NAMES], dtype=np.float32)
_BACKGROUND_NAMES = tuple(BACKGROUNDS)
_BACKGROUND_VALUES = np.array([BACKGROUNDS[name] for name in _BACKGROUND_NAMES], dtype=np.float32)


@dataclass(frozen=True)
class Found:
    """One thing in a picture: centre, half-extent and area in pixels."""

    colour: str | None
    """``None`` if no palette colour is near."""
    shape: str | None
    """``None`` if malformed."""
    x: float
    y: float
    radius: float
    area: float
    overlap: float
    """Intersection over union with the best shape, 0 to 1."""
    colour_error: float
    """Distance of its solid pixels' mean from the palette colour, sRGB 0..255."""


@dataclass(frozen=True)
class Segmentation:
    """What a picture shows: things, background (name or ``None``), its sRGB, number of specks."""

    things: tuple[Found, ...]
    background: str | None
    background_colour: tuple[float, float, float]
    specks: int


@dataclass(frozen=True)
class Verdict:
    """Which parts of a caption a picture fulfils; of what is not asked for they are true."""

    objects: bool
    """Every shape that is asked for is there."""
    colours: bool
    """Also in the colour that is asked for."""
    counts: bool
    """Each kind as often as asked for, and nothing else."""
    relations: bool
    sizes: bool
    background: bool
    score: float
    """Share of the single facts that are right, 0 to 1."""

    @property
    def all(self) -> bool:
        parts = self.objects, self.colours, self.counts, self.relations, self.sizes, self.background
        return all(parts)


@lru_cache
def _unit(shape: str) -> tuple[float, float, float]:
    """Area at half-extent 1, and the centroid's offset from the centre (x, y)."""
    mask = coverage(shape, 32.0, 32.0, 20.0)
    y, x = np.mgrid[0:64, 0:64] + 0.5
    area = float(mask.sum())
    return area / 400, float((mask * x).sum() / area - 32) / 20, float((mask * y).sum() / area - 32) / 20


def _overlap(alpha: npt.NDArray[np.float32], shape: str) -> tuple[float, float, float, float]:
    """Best overlap of a soft mask (64, 64) with a shape of its area: (overlap, x, y, radius)."""
    y, x = np.mgrid[0:64, 0:64] + 0.5
    area = float(alpha.sum())
    unit, dx, dy = _unit(shape)
    radius = float(np.sqrt(area / unit))
    cx = float((alpha * x).sum() / area) - dx * radius
    cy = float((alpha * y).sum() / area) - dy * radius
    sharp = coverage(shape, cx, cy, radius)
    # A picture may be soft (lossy compression halves the resolution of colour): try a soft template too.
    best = max(
        float(np.minimum(alpha, template).sum() / np.maximum(alpha, template).sum())
        for template in (sharp, ndimage.gaussian_filter(sharp, 1.0))
    )
    return best, cx, cy, radius


def _read(
    mask: npt.NDArray[np.bool_], rgb: npt.NDArray[np.float32], background: npt.NDArray[np.float32]
) -> Found:
    difference = np.linalg.norm(rgb - background, axis=-1)
    solid = mask & (difference >= 0.8 * np.percentile(difference[mask], 85))
    mean = np.median(rgb[solid], axis=0)
    distances = np.linalg.norm(_COLOUR_VALUES - mean, axis=-1)
    nearest = int(distances.argmin())
    direction = mean - background
    reach = ndimage.binary_dilation(mask, iterations=1)
    length = float(direction @ direction) or 1.0
    alpha = np.clip((rgb - background) @ direction / length, 0, 1) * reach
    alpha = np.where(alpha < 0.08, 0, alpha).astype(np.float32)
    # Of a patch of noise the middle may be the background's own colour: a thing all the same, but of no shape.
    plain = bool(alpha.any())
    alpha = alpha if plain else mask.astype(np.float32)
    overlap, shape, (x, y, radius) = max(
        (fit[0], shape, fit[1:]) for shape in SHAPES for fit in [_overlap(alpha, shape)]
    )
    return Found(
        colour=_COLOUR_NAMES[nearest] if distances[nearest] <= COLOUR_REACH else None,
        shape=shape if plain and overlap >= MIN_OVERLAP else None,
        x=x,
        y=y,
        radius=radius,
        area=float(alpha.sum()),
        overlap=overlap,
        colour_error=float(distances[nearest]),
    )


def _split_by_colour(
    mask: npt.NDArray[np.bool_], rgb: npt.NDArray[np.float32]
) -> list[npt.NDArray[np.bool_]]:
    """Areas of different colours that touch, apart; the mask itself if it has one colour."""
    nearest = np.linalg.norm(rgb[..., None, :] - _COLOUR_VALUES, axis=-1).argmin(axis=-1)
    counts = np.bincount(nearest[mask], minlength=len(_COLOUR_NAMES))
    core = ndimage.binary_erosion(mask, iterations=1)
    core_counts = np.bincount(nearest[core], minlength=len(_COLOUR_NAMES)) if core.any() else counts
    main = [
        k
        for k in range(len(_COLOUR_NAMES))
        if core_counts[k] >= 0.2 * max(1, core_counts.sum()) and counts[k] >= MIN_AREA
    ]
    if len(main) < 2:
        return [mask]
    parts = []
    for k in main:
        part = mask & (nearest == k)
        labels, number = ndimage.label(part)
        sizes = ndimage.sum_labels(part, labels, range(1, number + 1))
        parts += [labels == i + 1 for i in range(number) if sizes[i] >= MIN_AREA]
    return parts or [mask]


def segment(picture: npt.NDArray[np.uint8]) -> Segmentation:
    """Read a (64, 64, 3) uint8 sRGB picture."""
    rgb = picture.astype(np.float32)
    edges = [edge.reshape(-1, 3) for edge in (rgb[:2], rgb[-2:], rgb[:, :2], rgb[:, -2:])]
    background = np.median(np.concatenate(edges), axis=0).astype(np.float32)
    distances = np.linalg.norm(_BACKGROUND_VALUES - background, axis=-1)
    nearest = int(distances.argmin())
    foreground = np.linalg.norm(rgb - background, axis=-1) > FOREGROUND
    labels, number = ndimage.label(foreground)
    things: list[Found] = []
    specks = 0
    for k in range(1, number + 1):
        mask = labels == k
        if mask.sum() < MIN_AREA:
            specks += 1
        else:
            things += [_read(part, rgb, background) for part in _split_by_colour(mask, rgb)]
    return Segmentation(
        things=tuple(things),
        background=_BACKGROUND_NAMES[nearest] if distances[nearest] <= BACKGROUND_REACH else None,
        background_colour=(float(background[0]), float(background[1]), float(background[2])),
        specks=specks,
    )


def relation_holds(relation: str, first: list[Found], second: list[Found]) -> bool:
    """Whether two groups of things lie as ``relation`` says.

    Their centres of gravity must differ most along its axis, in the right direction, and no member may lie
    on the wrong side of a member of the other group.
    """
    if relation == "and":
        return True
    axis = 0 if relation in ("left of", "right of") else 1
    if relation in ("right of", "below"):
        first, second = second, first
    a = np.array([(thing.x, thing.y) for thing in first])
    b = np.array([(thing.x, thing.y) for thing in second])
    offset = b.mean(axis=0) - a.mean(axis=0)
    return bool(
        offset[axis] > 3
        and offset[axis] >= abs(offset[1 - axis])
        and (b[:, None, axis] - a[None, :, axis]).min() > 0
    )


def check_picture(picture: npt.NDArray[np.uint8], caption: Caption) -> Verdict:
    """Judge a (64, 64, 3) uint8 sRGB picture by a caption."""
    return judge(segment(picture), caption)


def judge(seen: Segmentation, caption: Caption) -> Verdict:
    """Judge what was seen by a caption."""
    phrases = caption.phrases
    matched = [
        [thing for thing in seen.things if (thing.colour, thing.shape) == (phrase.colour, phrase.shape)]
        for phrase in phrases
    ]
    shapes_there = [
        sum(thing.shape == phrase.shape for thing in seen.things)
        >= sum(other.shape == phrase.shape for other in phrases[: k + 1])
        for k, phrase in enumerate(phrases)
    ]
    colours_there = [bool(things) for things in matched]
    counts_right = [len(things) == phrase.count for things, phrase in zip(matched, phrases, strict=True)]
    nothing_else = len(seen.things) <= sum(max(1, len(things)) for things in matched)
    sizes_right = [
        bool(things)
        and all(
            one.radius < SMALL_BELOW if phrase.size == "small" else one.radius > LARGE_ABOVE for one in things
        )
        for things, phrase in zip(matched, phrases, strict=True)
        if phrase.size
    ]
    relation_right = []
    if caption.relation and caption.relation != "and":
        relation_right = [
            bool(matched[0] and matched[1]) and relation_holds(caption.relation, matched[0], matched[1])
        ]
    background_right = [seen.background == caption.background] if caption.background else []
    facts = [*shapes_there, *colours_there, *counts_right, nothing_else]
    facts += [*sizes_right, *relation_right, *background_right]
    return Verdict(
        objects=all(shapes_there),
        colours=all(colours_there),
        counts=all(counts_right) and nothing_else,
        relations=all(relation_right),
        sizes=all(sizes_right),
        background=all(background_right),
        score=sum(facts) / len(facts),
    )
