import pytest
import torch

from align.processes.base import Gaussian


def test_log_ratio_is_the_difference_of_independent_normals_log_densities():
    mean, other, noise = torch.randn(3, 5, 3, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    kernel, proposal = Gaussian(mean, 0.3), Gaussian(other, 0.3)
    z = proposal.sample(noise)
    p, q = (torch.distributions.Normal(one, 0.3).log_prob(z).flatten(1).sum(1) for one in (mean, other))
    torch.testing.assert_close(kernel.log_ratio(proposal, noise), p - q)


def test_log_ratio_keeps_small_differences_of_large_densities():
    """Two float32 densities of this size differ by less than they are rounded by."""
    mean, noise = torch.randn(2, 1, 4, 128, 128, generator=torch.Generator().manual_seed(0))
    shift = 1e-4 * torch.randn(mean.shape, generator=torch.Generator().manual_seed(1))
    moved = (mean + shift) - mean  # what float32 makes of the shift
    expected = -(moved.double() * noise.double()).sum() / 0.05 - moved.double().square().sum() / (2 * 0.05**2)
    found = Gaussian(mean, 0.05).log_ratio(Gaussian(mean + shift, 0.05), noise)
    assert float(found[0]) == pytest.approx(float(expected), abs=1e-9)


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
        Gaussian(z, 0.0).log_ratio(Gaussian(z, 0.0), z)
