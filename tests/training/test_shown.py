"""Generated pictures are described by the checker's reading, so captions and utilities must agree with it."""

from dataclasses import replace

import numpy as np
import pytest

from align.shapes.checker import check_picture, segment
from align.shapes.grammar import caption_split, captions, pair_split, parse
from align.shapes.utility import judge_drawing, utility
from scripts.shapes_training.groups import from_judged
from scripts.shapes_training.judged import Judged
from scripts.shapes_training.scenes import render, sample_scene
from scripts.shapes_training.shown import (
    describe,
    moved,
    recoloured,
    recolouring,
    renamed,
    seen_in,
    shown,
)


def some_scenes(number, seed=0):
    rng = np.random.default_rng(seed)
    stream = captions("train", seed)
    return [(caption, sample_scene(caption, rng)) for caption, _ in zip(stream, range(number), strict=False)]


@pytest.fixture(scope="module")
def judged():
    drawn = some_scenes(24)
    pictures = np.stack([render(scene) for _, scene in drawn]).reshape(6, 4, 64, 64, 3)
    seen = [[segment(picture) for picture in group] for group in pictures]
    drawings = [
        [np.mean(judge_drawing(p, s)) for p, s in zip(*group, strict=True)]
        for group in zip(pictures, seen, strict=True)
    ]
    return Judged(
        pictures,
        [drawn[4 * k][0] for k in range(6)],
        seen,
        np.array(drawings, np.float32),
        np.zeros((6, 4), np.float32),
    )


def test_a_description_is_true_and_of_the_training_split():
    rng = np.random.default_rng(1)
    described = 0
    for _, scene in some_scenes(40, seed=3):
        picture = render(scene)
        found = describe(segment(picture), rng)
        if found is None:
            continue
        described += 1
        caption, read = found
        assert check_picture(picture, caption).all, caption.text()
        assert caption_split(caption) == "train"
        assert len(read.things) == len(scene.things)
    assert described >= 30


def test_held_out_combinations_are_not_described():
    rng = np.random.default_rng(2)
    caption = parse("a red circle on a gray background")
    assert caption_split(caption) == "test"
    assert describe(segment(render(sample_scene(caption, rng, None))), rng) is None


@pytest.mark.slow
def test_described_pairs_have_true_and_false_captions(judged):
    pairs = shown(judged, 5)
    assert len(pairs) >= 18
    for pictures, texts, false in zip(pairs.pictures, pairs.captions, pairs.negatives, strict=True):
        for picture, text, wrong in zip(pictures, texts, false, strict=True):
            assert check_picture(picture, parse(str(text))).all
            assert not check_picture(picture, parse(str(wrong))).all


@pytest.mark.slow
def test_groups_carry_the_utilities_of_their_captions(judged):
    batch = from_judged(judged, np.array([0, 3]), np.random.default_rng(0))
    assert batch.pictures.shape == (2, 4, 3, 64, 64)
    for pictures, texts, utilities in zip(batch.pictures, batch.texts, batch.utilities, strict=True):
        for text, row in zip(texts, utilities, strict=True):
            for picture, value in zip(pictures, row, strict=True):
                flat = (picture.permute(1, 2, 0) * 255).round().byte().numpy()
                # The drawing's contrast depends a little on the colours; the content does not.
                assert utility(flat, parse(text)).total == pytest.approx(float(value), abs=0.15)


def test_a_recoloured_and_moved_picture_reads_as_its_labels_say():
    rng = np.random.default_rng(7)
    for _, scene in some_scenes(25, seed=9):
        picture = render(scene)
        seen = segment(picture)
        mapping = recolouring(((thing.colour, thing.shape) for thing in seen.things), rng)
        assert all(pair_split(mapping[t.colour], t.shape) == "train" for t in scene.things)
        other, dx, dy = moved(recoloured(picture, seen, mapping), seen, rng)
        read, expected = segment(other).things, seen_in(seen, mapping).things
        assert sorted((t.colour, t.shape) for t in read) == sorted((t.colour, t.shape) for t in expected)
        assert np.mean([t.x for t in read]) == pytest.approx(np.mean([t.x for t in expected]) + dx, abs=0.3)
        assert np.mean([t.y for t in read]) == pytest.approx(np.mean([t.y for t in expected]) + dy, abs=0.3)


def test_a_recolouring_renames_the_caption_alike():
    rng = np.random.default_rng(8)
    for caption, scene in some_scenes(10, seed=4):
        picture = render(scene)
        seen = segment(picture)
        mapping = recolouring(((phrase.colour, phrase.shape) for phrase in caption.phrases), rng)
        assert check_picture(recoloured(picture, seen, mapping), renamed(caption, mapping)).all


@pytest.mark.slow
def test_early_looks_come_with_the_timesteps_of_their_own_group(judged):
    """Groups may have been looked at at different timesteps; all looks are drawn equally often."""
    rng = np.random.default_rng(4)
    groups, members, looks = 6, 4, 2
    # Each look is a flat picture whose brightness names its group and look.
    brightness = (10 * np.arange(groups)[:, None] + np.arange(looks)).astype(np.uint8)
    predictions = np.zeros((groups, members, looks, 64, 64, 3), np.uint8)
    predictions += brightness[:, None, :, None, None, None]
    timesteps = np.stack([[700 - k, 300 - k] for k in range(groups)])
    blank = [[segment(np.zeros((64, 64, 3), np.uint8))] * members] * groups
    data = replace(judged, seen=blank, predictions=predictions, timesteps=timesteps)
    index = np.tile(np.arange(groups), 200)
    batch = from_judged(data, index, rng, early=True)
    shown_levels = (batch.pictures[:, 0, 0, 0, 0] * 255).round().long().numpy()
    late = shown_levels % 10
    assert np.array_equal(shown_levels // 10, index)
    assert np.array_equal(batch.steps.numpy(), timesteps[index, late])
    assert abs(late.mean() - 0.5) < 0.05
