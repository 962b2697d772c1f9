"""The judge must be right about pictures whose content is known."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from align.shapes.checker import check, segment
from align.shapes.grammar import BACKGROUNDS, COLOURS, Caption, Phrase, captions, parse
from align.shapes.render import Scene, Thing, render, scenes

MIRROR = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def jpeg(picture, quality):
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def noisy(picture, sigma, seed=0):
    noise = np.random.default_rng(seed).normal(0, sigma, picture.shape)
    return np.clip(picture + noise, 0, 255).round().astype(np.uint8)


def meaning(caption):
    """The same for captions that ask for the same, so that a "wrong" one is really wrong."""
    phrases = tuple(sorted(map(str, caption.phrases)))
    if caption.relation in (None, "and"):
        return phrases, None, caption.background
    first, second = caption.phrases[:2]
    relation = caption.relation
    if relation in ("right of", "below"):
        first, second, relation = second, first, MIRROR[relation]
    return phrases, (str(first), relation, str(second)), caption.background


def wrong_captions(caption, rng):
    """Captions with one thing changed that the picture then does not show."""
    first, *rest = caption.phrases
    colour = str(rng.choice([c for c in COLOURS if c != first.colour]))
    yield Caption((Phrase(colour, first.shape, first.count, first.size), *rest), caption.relation, caption.background)
    shape = str(rng.choice([s for s in ("circle", "square", "star", "cross", "ring") if s != first.shape]))
    yield Caption((Phrase(first.colour, shape, first.count, first.size), *rest), caption.relation, caption.background)
    count = int(rng.choice([n for n in (1, 2, 3) if n != first.count]))
    yield Caption((Phrase(first.colour, first.shape, count, first.size), *rest), caption.relation, caption.background)
    if caption.relation in MIRROR:
        yield Caption(caption.phrases, MIRROR[caption.relation], caption.background)
    if len(rest) == 1 and (rest[0].colour, rest[0].shape) != (first.colour, first.shape):
        swapped = (
            Phrase(rest[0].colour, first.shape, first.count, first.size),
            Phrase(first.colour, rest[0].shape, rest[0].count, rest[0].size),
        )
        yield Caption(swapped, caption.relation, caption.background)
    if caption.background:
        other = str(rng.choice([name for name in BACKGROUNDS if name != caption.background]))
        yield Caption(caption.phrases, caption.relation, other)
    if first.size:
        other_size = "large" if first.size == "small" else "small"
        yield Caption((Phrase(first.colour, first.shape, first.count, other_size), *rest), caption.relation, caption.background)


def truly_wrong(caption, rng):
    for other in wrong_captions(caption, rng):
        kinds = {(phrase.colour, phrase.shape) for phrase in other.phrases}
        if meaning(other) != meaning(caption) and len(kinds) == len(other.phrases):
            yield other


def rates(number, change=lambda picture, k: picture, seed=0):
    """Shares of right captions accepted and of wrong ones rejected."""
    rng = np.random.default_rng(seed)
    accepted, rejected, wrong = 0, 0, 0
    for k, (caption, scene) in enumerate(itertools.islice(scenes("test", seed), number)):
        picture = change(render(scene), k)
        accepted += check(picture, caption).all
        for other in truly_wrong(caption, rng):
            rejected += not check(picture, other).all
            wrong += 1
            break
        else:
            continue
    return accepted / number, rejected / wrong


def test_rendered_pictures_are_read_right():
    accepted, rejected = rates(120)
    assert accepted >= 0.99
    assert rejected >= 0.99
