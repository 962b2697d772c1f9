import numpy as np
import pytest
from scipy import ndimage

from align.shapes.grammar import parse
from align.shapes.utility import MARGIN, aesthetic, utility
from scripts.shapes_training.scenes import render, sample_scene

CAPTION = "a red circle above a large blue square on a gray background"


def picture(text=CAPTION, seed=0):
    return render(sample_scene(parse(text), np.random.default_rng(seed), None))


def test_a_rendered_picture_is_nearly_perfect():
    found = utility(picture(), parse(CAPTION))
    assert found.content == 1
    assert min(found.crispness, found.contrast, found.cleanness) > 0.9
    assert found.total > 15.8
    assert aesthetic(picture()) > 9


def test_content_comes_before_drawing():
    wrong = utility(picture("a red circle above a large green square on a gray background"), parse(CAPTION))
    shown = picture().astype(float)
    soft = (0.85 * ndimage.gaussian_filter(shown, (0.8, 0.8, 0)) + 0.15 * shown.mean()).astype(np.uint8)
    right = utility(soft, parse(CAPTION))
    assert right.content == 1
    assert right.total > wrong.total + MARGIN


@pytest.mark.parametrize("part", ["crispness", "contrast", "cleanness"])
def test_each_flaw_is_seen(part):
    shown = picture().astype(float)
    rng = np.random.default_rng(1)
    if part == "crispness":
        shown = ndimage.gaussian_filter(shown, (1, 1, 0))
    elif part == "contrast":
        shown = 0.6 * shown + 0.4 * 128
    else:
        shown = shown + rng.normal(0, 8, shown.shape)
    spoiled = shown.clip(0, 255).astype(np.uint8)
    before, after = utility(picture(), parse(CAPTION)), utility(spoiled, parse(CAPTION))
    assert getattr(after, part) < getattr(before, part) - 0.2
    assert aesthetic(spoiled) < aesthetic(picture())


def test_an_empty_picture_has_no_beauty():
    empty = np.full((64, 64, 3), 128, np.uint8)
    assert aesthetic(empty) <= 2.5
    assert utility(empty, parse(CAPTION)).content < 0.5
