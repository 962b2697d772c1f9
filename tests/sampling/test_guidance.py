from types import SimpleNamespace

import pytest
import torch

from align.sampling.guidance import Guidance
from align.sampling.objective import Terms


def estimate(scale=1.0):
    generator = torch.Generator().manual_seed(0)
    gradient = scale * torch.randn(3, 4, 8, 8, generator=generator)
    gradient[1] = 0
    correction = torch.randn(3, 4, 8, 8, generator=generator)
    return SimpleNamespace(
        gradient=gradient, gradient_norm=gradient.flatten(1).norm(dim=1), correction=correction
    )


@pytest.mark.parametrize("phase", [0, 1, 2])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_the_step_is_as_long_as_its_share_of_the_correction(phase, scale):
    found = estimate(scale)
    shift = Guidance(0.5, (1.5, 1.0, 3.0)).shift(found, Terms(phase, True, True))
    expected = 0.5 * (1.5, 1.0, 3.0)[phase] * found.correction.flatten(1).norm(dim=1)
    torch.testing.assert_close(shift.flatten(1).norm(dim=1)[[0, 2]], expected[[0, 2]])


def test_the_step_goes_against_the_gradient():
    found = estimate()
    shift = Guidance(1, (1, 1, 1)).shift(found, Terms(0, True, True))
    cosine = torch.cosine_similarity(shift.flatten(1), found.gradient.flatten(1))
    torch.testing.assert_close(cosine[[0, 2]], -torch.ones(2))


def test_no_gradient_no_step():
    assert not Guidance(1, (1, 1, 1)).shift(estimate(), Terms(0, True, True))[1].any()
