import itertools

import numpy as np
import pytest

from align.shapes.grammar import BACKGROUNDS, COLOURS, SHAPES, arrangement_split, pair_split, parse
from align.shapes.render import coverage, signed_distance
from scripts.shapes_training.scenes import (
    NoRoom,
    Scene,
    Thing,
    dominant_arrangement,
    masks,
    render,
    sample_scene,
    scenes,
)


def star_area():
    """Ten triangles from the centre."""
    return 10 * 0.5 * 1.1 * 0.46 * np.sin(np.pi / 5)


AREAS = {
    "circle": np.pi,
    "square": (2 * 0.88) ** 2,
    "triangle": 0.5 * 2 * 1.8,
    "star": star_area(),
    "cross": 2 * (2 * 0.64) - 0.64**2,
    "ring": np.pi * (1 - 0.52**2),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("radius", [5.4, 8.0, 13.2])
def test_coverage_has_the_shapes_area_wherever_it_lies(shape, radius):
    for x, y in [(32, 32), (31.3, 30.8), (20.5, 40.25)]:
        area = float(coverage(shape, x, y, radius).sum())
        assert area == pytest.approx(AREAS[shape] * radius**2, rel=0.012)


@pytest.mark.parametrize("shape", SHAPES)
def test_edges_are_anti_aliased_and_the_rest_is_solid(shape):
    alpha = coverage(shape, 32.3, 31.7, 10)
    assert alpha.min() == 0
    assert alpha.max() == 1
    y, x = (np.mgrid[0:64, 0:64] + 0.5 - np.array([31.7, 32.3])[:, None, None]) / 10
    far = 10 * signed_distance(shape, x, y)
    assert (alpha[far < -1.0] == 1).all()
    assert (alpha[far > 1.0] == 0).all()
    partial = (alpha > 0) & (alpha < 1)
    assert 20 < partial.sum() < 250


@pytest.mark.parametrize("shape", SHAPES)
def test_moving_a_little_changes_a_little(shape):
    one, two = coverage(shape, 32, 32, 9), coverage(shape, 32.05, 32, 9)
    assert 0 < np.abs(one - two).max() < 0.12


def test_a_picture_has_its_colours_exactly():
    picture = render(Scene((Thing("red", "square", 20, 20, 8), Thing("blue", "circle", 46, 46, 8)), "gray"))
    assert picture.shape == (64, 64, 3)
    assert picture.dtype == np.uint8
    assert tuple(picture[20, 20]) == COLOURS["red"]
    assert tuple(picture[46, 46]) == COLOURS["blue"]
    assert tuple(picture[2, 60]) == BACKGROUNDS["gray"]


def test_later_things_lie_over_earlier_ones():
    things = (Thing("red", "circle", 32, 32, 10), Thing("blue", "circle", 32, 32, 6))
    assert tuple(render(Scene(things, "white"))[32, 32]) == COLOURS["blue"]


def test_things_beyond_the_border_are_cut():
    assert float(coverage("circle", -30, 32, 5).sum()) == 0
    assert float(coverage("square", 0, 32, 8).sum()) == pytest.approx(AREAS["square"] * 64 / 2, rel=0.02)


def test_masks_are_area_shares():
    scene = Scene((Thing("red", "square", 20, 20, 8), Thing("blue", "circle", 46, 46, 9)), "gray")
    cells = masks(scene, 16)
    assert cells.shape == (2, 16, 16)
    assert cells.sum(axis=(1, 2)) * 16 == pytest.approx(
        [AREAS["square"] * 64, AREAS["circle"] * 81], rel=0.01
    )


@pytest.mark.parametrize("seed", range(3))
def test_scenes_show_what_the_caption_asks_for(seed):
    for caption, scene in itertools.islice(scenes("test", seed), 100):
        wanted = [(p.colour, p.shape) for p in caption.phrases for _ in range(p.count)]
        assert [(thing.colour, thing.shape) for thing in scene.things] == wanted
        assert caption.background in (None, scene.background)
        for thing in scene.things:
            assert 1.1 * thing.radius <= min(thing.x, thing.y)
            assert max(thing.x, thing.y) <= 64 - 1.1 * thing.radius
        for one, two in itertools.combinations(scene.things, 2):
            assert np.hypot(one.x - two.x, one.y - two.y) > one.radius + two.radius


def test_training_scenes_never_show_what_is_held_out():
    for _, scene in itertools.islice(scenes("train", 0), 600):
        assert all(pair_split(thing.colour, thing.shape) == "train" for thing in scene.things)
        for one, two in itertools.combinations(scene.things, 2):
            if (one.colour, one.shape) != (two.colour, two.shape):
                first, axis, second = dominant_arrangement(one, two)
                assert arrangement_split(first.shape, axis, second.shape) == "train"


def test_a_scene_that_cannot_be_is_an_error():
    held_out = parse("a red circle left of a blue circle")
    assert arrangement_split("circle", "left", "circle") == "test"
    with pytest.raises(NoRoom):
        sample_scene(held_out, np.random.default_rng(0), "train")
    assert sample_scene(held_out, np.random.default_rng(0), None)


def test_scenes_follow_their_seed():
    one, two, three = (list(itertools.islice(scenes("test", seed), 5)) for seed in (1, 1, 2))
    assert one == two
    assert one != three
