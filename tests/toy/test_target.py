"""Exact targets: the published closed forms, and what quadrature finds."""

import math

import pytest
import torch

from align.backbones.analytic import SCHEDULE
from align.processes.ddim import ddim
from align.toy.densities import Mixture
from align.toy.problems import DENSITIES, REWARDS, gaussian, gmm, gmm2
from align.toy.reward import Quadratic
from align.toy.target import expected_reward, tilted
from scripts.toys.chain import sampled_gaussian

PAIRS = [
    ("gaussian", "toy_linear"),
    ("gmm", "toy_gmm"),
    ("gmm2", "toy_gmm2"),
    ("swiss_roll", "toy_swiss_roll"),
]
REFERENCES = {  # Z = E[exp r], mean reward of the target, mean reward of the density itself
    "gaussian": (8.912902981198737, 2.375, 2.0),
    "gmm": (0.2370020185301154, -0.29072019151131445, -11.076333333333332),
    "gmm2": (0.051416, -1.340043, -9.23),
    "swiss_roll": (0.23381290395406984, -0.7246514580664287, -3.3323716072765546),
}


@pytest.mark.parametrize(("density", "reward"), PAIRS)
def test_evidence_and_mean_rewards(density, reward):
    z, of_target, of_base = REFERENCES[density]
    base, reward = DENSITIES[density](), REWARDS[reward]
    target = tilted(base, reward)
    tolerance = 1e-6 if density == "gmm2" else 1e-9
    assert math.exp(target.log_z) == pytest.approx(z, abs=tolerance)
    assert expected_reward(target.density, reward) == pytest.approx(of_target, abs=tolerance)
    assert expected_reward(base, reward) == pytest.approx(of_base, abs=tolerance)


@pytest.mark.parametrize("temperature", [1.0, 0.3, 5.0])
@pytest.mark.parametrize(("density", "reward"), PAIRS)
def test_the_target_is_the_density_times_the_exponential(density, reward, temperature):
    """p(x) exp(r(x) / alpha) / Z at points, with the reward that samplers see."""
    base, reward = DENSITIES[density](), REWARDS[reward]
    target = tilted(base, reward, temperature)
    x = base.sample(50, torch.Generator().manual_seed(0))
    expected = base.log_prob(x) + reward(x) / temperature - target.log_z
    torch.testing.assert_close(target.density.log_prob(x), expected, rtol=1e-8, atol=1e-8)


def test_masses_of_the_modes():
    first = tilted(gmm(), REWARDS["toy_gmm"]).density
    torch.testing.assert_close(
        first.weights[3:6],
        torch.tensor([0.3151909817630943, 0.3695272448581525, 0.3151909817630943], dtype=torch.float64),
    )
    assert first.means[3:6].tolist() == [
        pytest.approx(pair) for pair in [(-3.976143141153081, 0), (0, 0), (3.976143141153081, 0)]
    ]
    assert float(first.weights.sum()) == pytest.approx(1)
    assert first.variance.tolist() == pytest.approx([0.2982107355864811, 0.1875])
    second = tilted(gmm2(), REWARDS["toy_gmm2"]).density
    east_to_south_east = [7.712268992530169e-05, 0.009175994354235056, 0.7986519703363695]
    assert second.weights[:3].tolist() == pytest.approx(east_to_south_east)
    assert second.weights[5:7].tolist() == pytest.approx([0.003155855998470089, 0.17653008357836944])
    assert second.means[2].tolist() == pytest.approx([0, 3.830188679245283])


def test_a_slope_moves_every_component_by_its_variance():
    mixture = Mixture.equal(torch.tensor([[0.0], [2.0]]), 0.5)
    target = tilted(mixture, Quadratic((1.0,), (0.0,), (0.0,)), temperature=2.0).density
    assert target.means[:, 0].tolist() == pytest.approx([0.25, 2.25])
    assert float(target.weights[1] / target.weights[0]) == pytest.approx(math.e)


@pytest.mark.parametrize(
    ("steps", "variance", "target_mean", "z"),
    [(100, 0.265645, (1.265581, -2.132694), 8.722445), (500, 0.291958, (1.291896, -2.145855), 8.867113)],
)
def test_finitely_many_steps_arrive_at_a_narrower_gaussian(steps, variance, target_mean, z):
    """The recursion of the linear chain; its limit is N((1, -2), 0.3 I) and Z = 8.912903."""
    reached = sampled_gaussian(ddim(SCHEDULE, steps, 1.0), gaussian())
    assert reached.variance.tolist() == pytest.approx([variance] * 2, abs=1e-6)
    if steps == 100:
        assert reached.means[0].tolist() == pytest.approx([0.999936, -1.999872], abs=1e-6)
    target = tilted(reached, REWARDS["toy_linear"])
    assert target.density.means[0].tolist() == pytest.approx(target_mean, abs=1e-6)
    assert math.exp(target.log_z) == pytest.approx(z, abs=1e-6)


def test_only_a_single_gaussian_stays_one():
    with pytest.raises(ValueError, match="single Gaussian"):
        sampled_gaussian(ddim(SCHEDULE, 10, 1.0), gmm())


def test_squares_are_clamped_at_ten_thousand():
    x = torch.tensor([[200.0, 0.0], [0.0, 99.0], [0.0, -200.0]])
    assert REWARDS["toy_gmm"](x).tolist() == pytest.approx([-100, -9801, -10_000])
