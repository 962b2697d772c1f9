"""Altered copies against recorded ones of the published augmentation, and what has to hold beyond it."""

import itertools
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from align.rewards.resample import product
from align.sampling.views import ViewDraws, centres, hole, moving, shift_range, views

RECORDED = load_file(Path(__file__).parent.parent / "golden/data/diffaugment.safetensors")
PICTURES = torch.rand(2, 3, 24, 40, generator=torch.Generator().manual_seed(0))


def uniform(whole, number):
    """The middle of the uniform numbers that give an integer of [0, number)."""
    return (whole.double() + 0.5) / number


def move(x, row, column, resize):
    """(P, V, 3, H, W) moved and scaled."""
    rows, columns = (
        moving(one, resize, side, x.device) for one, side in ((row, x.shape[-2]), (column, x.shape[-1]))
    )
    return product(x.flatten(0, 1), rows, columns).view_as(x)


def cutout(x, row, column):
    """(P, V, 3, H, W) with a box set to zero."""
    return x.masked_fill(hole(row, column, *x.shape[-2:], x.device), 0.0)


def resize(x, u):
    """Each of (V, 3, H, W) scaled where it stands."""
    middle = torch.full((1, len(x)), 0.5)
    return move(x[None], middle, middle, torch.tensor([[u]]))[0]


def translate(x, row, column):
    """(P, V, 3, H, W) moved and not scaled."""
    return move(x, row, column, torch.full((len(x), 1), 0.5))


def draws(pictures=2, copies=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return ViewDraws.of(lambda purpose, n: torch.rand(pictures, n, generator=generator), copies)


def recorded_draws(side=32):
    policy = {key.removeprefix("policy/"): value for key, value in RECORDED.items()}
    k = shift_range(side)
    return ViewDraws(
        policy["brightness_u"][None],
        policy["saturation_u"][None],
        policy["contrast_u"][None],
        uniform(policy["translation_rows"] + k, 2 * k + 1)[None],
        uniform(policy["translation_cols"] + k, 2 * k + 1)[None],
        policy["resize_u"][None],
        uniform(policy["cutout_row"], centres(side))[None],
        uniform(policy["cutout_col"], centres(side))[None],
    )


def test_the_whole_policy_as_recorded():
    ours = views(RECORDED["policy/input"] / 2 + 0.5, recorded_draws())
    torch.testing.assert_close(2 * ours[0] - 1, RECORDED["policy/output"], rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", ["resize1", "resize4"])
def test_enlarging_and_shrinking_as_recorded(name):
    ours = resize(RECORDED["input"], float(RECORDED[f"{name}/u"]))
    torch.testing.assert_close(ours, RECORDED[f"{name}/output"], rtol=0, atol=1e-6)


def test_translation_and_cutout_as_recorded():
    x, k = RECORDED["input"][:, None], shift_range(32)
    rows, columns = (
        uniform(RECORDED[f"translation/{name}"] + k, 2 * k + 1)[:, None] for name in ("rows", "cols")
    )
    assert torch.equal(translate(x, rows, columns)[:, 0], RECORDED["translation/output"])
    rows, columns = (uniform(RECORDED[f"cutout/{name}"], centres(32))[:, None] for name in ("rows", "cols"))
    assert torch.equal(cutout(x, rows, columns)[:, 0], RECORDED["cutout/output"])


def test_rectangles_keep_their_size_and_proportions():
    assert views(PICTURES, draws()).shape == (2, 5, 3, 24, 40)
    wide = torch.zeros(1, 3, 20, 60)
    wide[..., 5:15, 15:45] = 1  # The middle half of both sides stays the middle.
    for u in (0.0, 0.9):
        across, down = (
            float(resize(wide, u)[0, 0].select(axis, at).sum()) for axis, at in ((0, 10), (1, 30))
        )
        assert across == pytest.approx(3 * down, rel=0.1)


def test_a_picture_is_altered_by_its_own_draws_alone():
    together = views(PICTURES, draws())
    for k in range(2):
        alone = views(PICTURES[k : k + 1], draws().take(torch.tensor([k])))
        torch.testing.assert_close(together[k : k + 1], alone)


def test_copies_can_be_made_in_parts():
    whole = views(PICTURES, draws())
    parts = [views(PICTURES, draws().copies(some)) for some in (slice(0, 2), slice(2, 5))]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)


def test_gradients_reach_the_picture():
    pictures = PICTURES.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(views(pictures, draws()).sum(), pictures)
    assert torch.isfinite(gradient).all()
    assert (gradient != 0).float().mean() > 0.9


def test_each_copy_is_moved_by_its_own_draws_and_scaled_as_its_picture():
    some = draws()
    x = torch.rand(2, 5, 3, 24, 40, generator=torch.Generator().manual_seed(1))
    down, right = shift_range(24), shift_range(40)
    wide = F.pad(x, (right, right, down, down))
    for p, v in itertools.product(range(2), range(5)):
        top, left = int(some.row[p, v] * (2 * down + 1)), int(some.column[p, v] * (2 * right + 1))
        ratio = 0.8 + 0.4 * float(some.resize[p])
        size = (int(ratio * 24), int(ratio * 40))
        scaled = F.interpolate(
            wide[p, v : v + 1, :, top : top + 24, left : left + 40], size=size, mode="bilinear"
        )
        gaps = [
            (old - new) // 2 if ratio < 1 else -((new - old) // 2)
            for old, new in zip((24, 40), size, strict=True)
        ]
        wanted = F.pad(scaled, (gaps[1], 40 - size[1] - gaps[1], gaps[0], 24 - size[0] - gaps[0]))
        found = move(x, some.row, some.column, some.resize)[p, v]
        torch.testing.assert_close(found, wanted[0], rtol=0, atol=1e-6)
