"""Vectors that pass for noise, against what noise is and what is nearest."""

import math

import pytest
import torch

from align.sampling.whitening import block_size, phases, spectrum, white_magnitudes


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
