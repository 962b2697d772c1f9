import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from align.rewards import preprocess
from align.rewards.preprocess import fit, resize_images, to_pictures, to_rgb


@pytest.mark.parametrize("variant", ["clip", "hps", "hps2023", "spo"])
def test_the_towers_own_size_is_not_resampled(variant):
    pictures = torch.rand(2, 3, 64, 64)
    assert torch.equal(fit(pictures, 64, variant), pictures)


@pytest.mark.parametrize("variant", ["clip", "hps", "hps2023", "spo"])
@pytest.mark.parametrize("size", [(96, 160), (150, 97), (48, 48)])
def test_results_are_square_and_in_range(variant, size):
    found = fit(torch.rand(1, 3, *size), 64, variant)
    assert found.shape == (1, 3, 64, 64)
    if variant.startswith("hps"):
        found = found.clamp(-0.3, 1.3)  # its own code lets bicubic overshoot at edges
        assert found.mean() > 0
    else:
        assert found.min() >= 0
        assert found.max() <= 1


def test_letterbox_pads_with_black():
    found = fit(torch.ones(1, 3, 50, 100), 64, "hps")
    assert torch.equal(found[..., :16, :], torch.zeros(1, 3, 16, 64))
    torch.testing.assert_close(found[..., 16:48, :], torch.ones(1, 3, 32, 64))


def test_differentiable_resize_is_close_to_pillow():
    generator = torch.Generator().manual_seed(0)
    smooth = torch.nn.functional.interpolate(
        torch.rand(1, 3, 12, 16, generator=generator), size=(120, 160), mode="bicubic"
    ).clamp(0, 1)
    image = Image.fromarray((smooth[0] * 255).round().byte().permute(1, 2, 0).numpy())
    exact = to_pictures(resize_images([image], 64, "clip"))
    assert (fit(to_pictures([image]), 64, "clip") - exact).abs().max() < 3 / 255


def test_transparency_is_laid_over_white():
    assert to_rgb(Image.new("RGBA", (2, 2), (255, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)


def test_sizes_in_one_call_must_agree():
    with pytest.raises(ValueError, match="one size"):
        to_pictures([Image.new("RGB", (2, 2)), Image.new("RGB", (3, 2))])


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize(("sides", "size"), [((512, 512), 224), ((64, 96), 24), ((150, 97), 160)])
def test_bicubic_products_are_torchs_own_resizing(sides, size, antialias):
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(2, 3, *sides, generator=generator, requires_grad=True)
    towards = torch.rand(2, 3, size, size, generator=generator)
    results = []
    for found in (
        preprocess._sized(pictures, (size, size), (size, size), (0, 0), antialias=antialias),
        F.interpolate(pictures, size=(size, size), mode="bicubic", antialias=antialias),
    ):
        results.append((found, *torch.autograd.grad(found, pictures, towards)))
    for ours, theirs in zip(*results, strict=True):
        assert (ours - theirs).norm() < 4e-7 * theirs.norm()


@pytest.mark.parametrize("variant", ["clip", "hps", "hps2023", "spo"])
def test_photographs_beyond_the_largest_product_are_sized_alike(variant, monkeypatch):
    photograph = torch.rand(1, 3, 90, 200, generator=torch.Generator().manual_seed(0))
    usual = fit(photograph, 64, variant)
    monkeypatch.setattr(preprocess, "LARGEST", 100)
    torch.testing.assert_close(fit(photograph, 64, variant), usual, rtol=0, atol=2e-6)


@pytest.mark.parametrize("variant", ["clip", "hps", "hps2023", "spo"])
def test_a_gradient_goes_through_products_at_any_size(variant, monkeypatch):
    monkeypatch.setattr(preprocess, "LARGEST", 100)
    monkeypatch.delattr(preprocess, "F")
    picture = torch.rand(1, 3, 90, 200, requires_grad=True)
    (slope,) = torch.autograd.grad(fit(picture, 64, variant).sum(), picture)
    assert slope.abs().sum() > 0
