"""What plain sampling ends at, by quadrature: against closed forms, a product of chains and published simulation."""

import math

import pytest
import torch

from align.backbones.analytic import SCHEDULE
from align.processes.ddim import ddim
from align.toy.densities import Mixture
from align.toy.problems import REWARDS, gaussian, gmm, gmm2, swiss_roll
from align.toy.target import expected_reward, tilted
from scripts.toys.chain import expectations, sampled_gaussian

PROCESS = ddim(SCHEDULE, 100, 1.0)


def tilting(reward):
    """1, exp r and r exp r."""

    def functions(x):
        value = reward(x)
        return torch.stack([torch.ones_like(value), value.exp(), value * value.exp()])

    return functions


def test_a_gaussian_stays_one():
    one, z, of_reward = expectations(PROCESS, gaussian(), tilting(REWARDS["toy_linear"]), 0.2).tolist()
    target = tilted(sampled_gaussian(PROCESS, gaussian()), REWARDS["toy_linear"])
    assert one == pytest.approx(1, abs=1e-9)
    assert z == pytest.approx(math.exp(target.log_z), rel=1e-6)
    assert z == pytest.approx(8.722445, abs=1e-5)
    assert of_reward / z == pytest.approx(expected_reward(target.density, REWARDS["toy_linear"]), rel=1e-6)


def test_a_grid_of_modes_is_two_independent_chains():
    """Neither score nor reward of nine modes on a grid mixes the axes."""
    z, of_reward = expectations(PROCESS, gmm(), tilting(REWARDS["toy_gmm"]), 0.2)[1:].tolist()
    side = Mixture.equal(torch.tensor([[-4.0], [0.0], [4.0]]), 0.3)
    axes = [tilting(REWARDS["toy_gmm"].axes(k, k + 1)) for k in (0, 1)]
    (zx, rx), (zy, ry) = (expectations(PROCESS, side, axis, 0.02)[1:].tolist() for axis in axes)
    assert z == pytest.approx(zx * zy, rel=2e-5)
    assert of_reward == pytest.approx(rx * zy + zx * ry, rel=1e-4)
    # 400 000 chains, reweighted: 0.24743 +- 0.00057 and -0.2782.
    assert z == pytest.approx(0.24743, abs=3 * 0.00057)
    assert of_reward / z == pytest.approx(-0.2782, abs=2e-3)


def test_a_circle_of_modes():
    z, of_reward = expectations(PROCESS, gmm2(), tilting(REWARDS["toy_gmm2"]), 0.2)[1:].tolist()
    # 400 000 chains, reweighted: 0.05241 +- 0.00019 and -1.3264.
    assert z == pytest.approx(0.05241, abs=3 * 0.00019)
    assert of_reward / z == pytest.approx(-1.3264, abs=6e-3)


def test_many_steps_end_at_the_density():
    """The last state is at timestep 0, a little noise away from clean."""
    band = swiss_roll().parts[1]
    axis = REWARDS["toy_swiss_roll"].axes(2, 3)
    errors = []
    for steps in (50, 200, 500):
        z = float(expectations(ddim(SCHEDULE, steps, 1.0), band, tilting(axis), 0.05)[1])
        errors.append(abs(math.log(z) - tilted(band, axis).log_z))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 6e-3


def test_three_coordinates_are_refused():
    with pytest.raises(ValueError, match="take the parts"):
        expectations(PROCESS, swiss_roll(), tilting(REWARDS["toy_swiss_roll"]))
