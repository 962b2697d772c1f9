"""Which of two pictures is better: the one definition that the shapes reward models learn.

``utility`` judges a picture for a caption: **content first** (the share of right facts by the checker;
one fact outweighs all the rest), then how well it is drawn: crispness, contrast, cleanness.
``aesthetic`` judges a picture without any caption.  Both are exact functions of the 8-bit picture and
take 10 to 20 ms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from align.shapes.checker import BACKGROUND_REACH, COLOUR_REACH, FOREGROUND, Segmentation, judge, segment
from align.shapes.grammar import BACKGROUNDS, MAX_OBJECTS, Caption
from align.shapes.render import PICTURE

CONTENT_WEIGHT = 15.0
"""Weight of the content: a caption has at most 15 facts, so one fact is worth all of the drawing."""
MARGIN = 0.15
"""Pairs whose utilities differ by less are no preference (drawing differs by 15 % of its range)."""
SHARP, SOFT = 0.7, 2.6
"""Pixels between colours per pixel of outline: anti-aliased rendering, and a blur of 1.3 pixels."""
NOISE_REACH = 20.0
"""Deviation of the empty background (sRGB 0..255, all channels together) at which nothing is clean."""
BEST_OVERLAP, WORST_OVERLAP = 0.92, 0.6
"""Overlap with an ideal shape that counts as well formed, and as not at all."""


@dataclass(frozen=True)
class Utility:
    """How good a picture is for a caption; all parts 0 to 1.

    Attributes:
        content: share of right facts.
        crispness: edges as sharp as in rendering.
        contrast: objects and background in their true colours.
        cleanness: no noise and no specks on the background.
        total: ``CONTENT_WEIGHT`` times content plus the mean of the others, 0 to 16.
    """

    content: float
    crispness: float
    contrast: float
    cleanness: float
    total: float


def _clip(value: float) -> float:
    return float(min(1.0, max(0.0, value)))


def crispness(picture: npt.NDArray[np.uint8], background: tuple[float, float, float]) -> float:
    """Few pixels between colours along the outlines, 0 to 1; 0 for a picture that shows nothing.

    A pixel is between colours if its distance from the background is 20 to 80 % of the largest one nearby.
    """
    distance = np.linalg.norm(picture.astype(np.float32) - np.array(background, np.float32), axis=-1)
    nearby = ndimage.maximum_filter(distance, size=5)
    edge = nearby > FOREGROUND
    share = np.where(edge, distance / np.maximum(nearby, 1), 0)
    inside = share > 0.5
    outline = np.pi / 4 * ((inside[1:] != inside[:-1]).sum() + (inside[:, 1:] != inside[:, :-1]).sum())
    if outline < 8:
        return 0.0
    between = float(((share > 0.2) & (share < 0.8)).sum())
    return _clip(1 - (between / float(outline) - SHARP) / (SOFT - SHARP))


def contrast(seen: Segmentation) -> float:
    """Objects and background in true colours, 0 to 1; 0 without objects."""
    if not seen.things:
        return 0.0
    objects = np.mean([_clip(1 - thing.colour_error / COLOUR_REACH) for thing in seen.things])
    values = np.array(list(BACKGROUNDS.values()), dtype=np.float32)
    error = np.linalg.norm(values - np.array(seen.background_colour), axis=-1).min()
    return _clip(0.75 * float(objects) + 0.25 * _clip(1 - float(error) / BACKGROUND_REACH))


def cleanness(picture: npt.NDArray[np.uint8], seen: Segmentation) -> float:
    """An even background without specks, 0 to 1."""
    distance = np.linalg.norm(
        picture.astype(np.float32) - np.array(seen.background_colour, np.float32), axis=-1
    )
    empty = ~ndimage.binary_dilation(distance > FOREGROUND, iterations=3)
    if empty.sum() < 100:
        return 0.0
    noise = float(np.sqrt(np.square(distance[empty]).mean()))
    return _clip(1 - noise / NOISE_REACH) * float(np.exp(-0.35 * seen.specks))


def wellformed(seen: Segmentation) -> float:
    """Whole shapes, one to three of them, inside the frame, 0 to 1; 0 without objects."""
    if not seen.things:
        return 0.0
    values = []
    for thing in seen.things:
        value = _clip((thing.overlap - WORST_OVERLAP) / (BEST_OVERLAP - WORST_OVERLAP))
        if min(thing.x, thing.y) < thing.radius - 1 or max(thing.x, thing.y) > PICTURE - thing.radius + 1:
            value *= 0.5
        values.append(value)
    return float(np.mean(values)) * min(1.0, MAX_OBJECTS / len(seen.things))


def judge_drawing(picture: npt.NDArray[np.uint8], seen: Segmentation) -> tuple[float, float, float]:
    """Crispness, contrast and cleanness of a picture that was segmented already."""
    return crispness(picture, seen.background_colour), contrast(seen), cleanness(picture, seen)


def utility(picture: npt.NDArray[np.uint8], caption: Caption, seen: Segmentation | None = None) -> Utility:
    """How good a (64, 64, 3) uint8 sRGB picture is for a caption; ``seen`` saves segmenting it again."""
    seen = seen or segment(picture)
    content = judge(seen, caption).score
    drawing = judge_drawing(picture, seen)
    return Utility(content, *drawing, total=total(content, sum(drawing) / 3))


def total(content: float, drawing: float) -> float:
    """Utility of a picture from its content and the mean of its three drawing parts, all 0 to 1."""
    return CONTENT_WEIGHT * content + drawing


def aesthetic(picture: npt.NDArray[np.uint8], seen: Segmentation | None = None) -> float:
    """How well a (64, 64, 3) uint8 picture is drawn, whatever it shows: 0 to 10."""
    seen = seen or segment(picture)
    return 2.5 * (sum(judge_drawing(picture, seen)) + wellformed(seen))
