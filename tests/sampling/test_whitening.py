"""Vectors that pass for noise, against what noise is and what is nearest."""

import math

import pytest
import torch

from align.sampling.whitening import (
    block_size,
    bounded,
    hartley,
    phases,
    rank_bounds,
    ranks,
    spectrum,
    white_magnitudes,
)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(one, other):
    return torch.cosine_similarity(one.flatten(1), other.flatten(1))


def blocks_of(x, size=16):
    """Magnitudes of the compact spectrum, block by block; written apart."""
    f = torch.fft.fft(x.flatten(1)) / math.sqrt(x[0].numel())
    half = x[0].numel() // 2
    y = torch.cat([((f[:, :1].real + 1j * f[:, half : half + 1].real) / math.sqrt(2)), f[:, 1:half]], 1)
    return y.abs().unflatten(1, (-1, size))


def test_every_block_has_the_sums_of_noise():
    slow = torch.linspace(0, 2 * math.pi, 512, dtype=torch.float64).sin()
    for x in (normal(4, 512), 1e-12 * normal(4, 512).abs(), slow[None] + 1e-3 * normal(1, 512)):
        found = blocks_of(spectrum(x))
        torch.testing.assert_close(found.sum(-1), torch.full_like(found[..., 0], 8 * math.sqrt(math.pi)))
        torch.testing.assert_close(found.square().sum(-1), torch.full_like(found[..., 0], 16.0))


def test_noise_hardly_changes_what_is_white_not_at_all_and_a_slow_wave_a_lot():
    x = normal(8, 4, 32, 32)
    once = spectrum(x)
    assert float(cosine(x, once).min()) > 0.985
    torch.testing.assert_close(spectrum(once), once, rtol=0, atol=1e-6)
    torch.testing.assert_close(spectrum(37 * x), once)
    slow = torch.linspace(0, 2 * math.pi, 512, dtype=torch.float64).sin()[None] + 1e-3 * normal(1, 512)
    assert float(cosine(slow, spectrum(slow))) < 0.2


def test_nothing_that_is_white_is_nearer():
    """On the block of three the feasible set is a circle, which can be walked."""
    angle = torch.linspace(0, 2 * math.pi, 20_001, dtype=torch.float64)[:-1]
    mean = math.sqrt(math.pi) / 2
    radius = math.sqrt(3 - 3 * mean**2)
    one, two = (
        torch.tensor([[1.0, -1, 0], [1, 1, -2]], dtype=torch.float64)
        .mul(torch.tensor([[0.5**0.5], [6**-0.5]]))
        .double()
    )
    circle = mean + radius * (angle.cos()[:, None] * one + angle.sin()[:, None] * two)
    circle = circle[(circle >= 0).all(-1)]
    for a in normal(50, 3, seed=3).abs():
        found = white_magnitudes(a)
        nearest = circle[(circle - a).square().sum(-1).argmin()]
        torch.testing.assert_close(found, nearest, rtol=0, atol=1e-3)


def test_equal_magnitudes_have_an_answer_and_none_stay_none():
    flat = white_magnitudes(torch.ones(2, 16, dtype=torch.float64))
    assert torch.equal(flat[0], flat[1])
    torch.testing.assert_close(flat.square().sum(-1), torch.full((2,), 16.0, dtype=torch.float64))
    assert not spectrum(torch.zeros(1, 64)).any()


@pytest.mark.parametrize(
    ("entries", "size"), [(4096, 16), (48, 12), (64, 16), (20, 10), (2, 0), (3, 0), (26, 13), (34, 0)]
)
def test_a_spectrum_is_cut_evenly(entries, size):
    assert block_size(entries) == size
    if not size:
        with pytest.raises(ValueError, match="can be white"):
            spectrum(torch.ones(1, entries))


def test_phases_are_the_directions_and_magnitudes_the_noises():
    x, noise = normal(2, 3, 8, 6), normal(2, 3, 8, 6, seed=1)
    found = torch.fft.fft2(phases(x, noise))
    torch.testing.assert_close(found.abs(), torch.fft.fft2(noise).abs(), rtol=1e-4, atol=1e-4)
    turned = found * torch.fft.fft2(x).conj()
    torch.testing.assert_close(turned, turned.abs().to(turned.dtype), rtol=1e-3, atol=1e-3)
    assert (
        torch.equal(phases(5 * x, noise).float(), phases(x, noise).float())
        or float((phases(5 * x, noise) - phases(x, noise)).abs().max()) < 1e-5
    )
    line = phases(normal(2, 2, 1, 1), normal(2, 2, 1, 1, seed=2))
    torch.testing.assert_close(
        line, normal(2, 2, 1, 1, seed=2).abs() * normal(2, 2, 1, 1).sign(), rtol=1e-5, atol=1e-6
    )


def test_ranks_of_noise_are_within_their_bounds_about_as_often_as_they_say():
    low, high = (torch.from_numpy(one) for one in rank_bounds(6, 8, 0.9))
    drawn = normal(20_000, 6, 8).sort(dim=2).values.sort(dim=1).values
    within = ((low <= drawn) & (drawn <= high)).double().mean(0)
    torch.testing.assert_close(within, torch.full((6, 8), 0.9, dtype=torch.float64), rtol=0, atol=0.015)


def test_clipped_ranks_stay_in_place_and_keep_their_order():
    """Two tiles of three: the larger of the largest is too large, the smaller of the middle ones too; all else stays what it is."""
    low, high = torch.tensor([[-2.0, -1, 0], [-1, 0, 1]]), torch.tensor([[-1.0, 0, 1], [0, 1, 2]])
    tiles = torch.tensor([[0.5, -1.5, 9.0], [0.25, -0.5, 0.75]])
    assert torch.equal(bounded(tiles, low, high), torch.tensor([[0.5, -1.5, 2.0], [0.0, -0.5, 0.75]]))
    assert torch.equal(bounded(tiles[:, [2, 0, 1]], low, high), bounded(tiles, low, high)[:, [2, 0, 1]])


def test_noise_passes_nearly_unchanged_and_structure_does_not_whatever_its_length():
    x = normal(4, 4, 16, 16)
    assert float(cosine(x, ranks(x)).min()) > 0.999
    slow = torch.linspace(0, 2 * math.pi, 512, dtype=torch.float64).sin()[None] + 1e-3 * normal(1, 512)
    found = ranks(slow)
    torch.testing.assert_close(ranks(1e-9 * slow), found)
    assert 0.1 < float(cosine(slow, found)) < 0.9
    assert float(found.square().mean()) == pytest.approx(1)
    assert float(hartley(slow[0]).abs().max()) > 10
    assert float(hartley(found[0]).abs().max()) < 6
    assert torch.isfinite(ranks(torch.zeros(1, 48))).all()
