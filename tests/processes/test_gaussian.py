import pytest
import torch

from align.processes.gaussian import Gaussian, renoise


def test_log_prob_is_that_of_independent_normals():
    mean, z = torch.randn(2, 5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = torch.distributions.Normal(mean, 0.3).log_prob(z).flatten(1).sum(1)
    torch.testing.assert_close(Gaussian(mean, 0.3).log_prob(z), expected)


def test_log_prob_is_float32_whatever_the_latents_are():
    mean = torch.zeros(2, 1, 8, 8, dtype=torch.bfloat16)
    assert Gaussian(mean, 0.5).log_prob(mean).dtype == torch.float32


def test_a_sample_is_mean_plus_scaled_noise():
    mean, noise = torch.randn(2, 2, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Gaussian(mean, 0.5).sample(noise), mean + 0.5 * noise)


def test_shifting_moves_the_mean_alone():
    shifted = Gaussian(torch.zeros(1, 1, 2, 2), 0.5).shifted(torch.ones(1, 1, 2, 2))
    assert shifted.std == 0.5
    assert torch.equal(shifted.mean, torch.ones(1, 1, 2, 2))


def test_a_deterministic_kernel_has_no_density():
    z = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match="no density"):
        Gaussian(z, 0.0).log_prob(z)


def test_renoising_keeps_unit_variance():
    z, noise = torch.randn(2, 40000, generator=torch.Generator().manual_seed(0))
    assert float(renoise(z, 0.7, noise).var()) == pytest.approx(1, abs=0.03)
