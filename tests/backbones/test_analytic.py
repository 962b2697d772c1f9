"""Known densities as backbones: exact predictions, and coordinates that survive being pictures."""

import pytest
import torch
from fakes import CPU, passes

from align.backbones.analytic import SCHEDULE, AnalyticBackbone
from align.backbones.base import Conditioning
from align.backbones.guider import Guider
from align.processes.ddim import ddim
from align.rewards.registry import load
from align.sampling.ledger import Ledger
from align.sampling.loop import run, start
from align.sampling.parts import Parts
from align.sampling.state import Pictures
from align.toy.picture import to_coordinates, to_pictures
from align.toy.problems import DENSITIES, REWARDS, gaussian
from scripts.toys.chain import sampled_gaussian

PROCESS = ddim(SCHEDULE, 100, 1.0)


def backbone_of(name):
    return AnalyticBackbone(DENSITIES[name](), CPU)


def predict(backbone, z, step, scale=1.0):
    conditioning = Conditioning.of([backbone.encode("sample", "")] * len(z))
    return backbone.predict(z, step, conditioning, Guider(scale))


def test_the_steps_of_the_reference_runs():
    assert [step.time for step in PROCESS.steps] == list(range(991, 0, -10))
    assert [step.time_next for step in PROCESS.steps] == [*range(981, 0, -10), 0]
    assert PROCESS.steps[-1].a_next ** 2 == pytest.approx(1 - 1e-4)
    assert PROCESS.steps[0].a ** 2 == pytest.approx(4.8e-5, rel=0.02)
    assert PROCESS.steps[-1].std > 0


@pytest.mark.parametrize("index", [0, 50, 90])
@pytest.mark.parametrize("name", DENSITIES)
def test_the_clean_prediction_is_the_posterior_mean(name, index):
    """Against a weighted mean over draws of the density, E[x0 | z] = E[x0 p(z | x0)] / E[p(z | x0)]."""
    backbone, step = backbone_of(name), PROCESS.steps[index]
    generator = torch.Generator().manual_seed(index)
    draws = backbone.density.sample(400_000, generator)
    x0 = backbone.density.sample(4, generator)
    z = step.a * x0 + step.s * torch.randn(x0.shape, dtype=torch.float64, generator=generator)
    found = predict(backbone, z[..., None, None], step)
    apart = (z[:, None] - step.a * draws).square().sum(2)
    weights = torch.softmax(-apart / (2 * step.s**2), dim=1)
    expected = weights @ draws
    error = (weights.square() @ draws.square() - 2 * (weights.square() @ draws) * expected
             + weights.square().sum(1, keepdim=True) * expected.square()).sqrt()  # fmt: skip
    assert ((found.x0[..., 0, 0] - expected).abs() < 4.5 * error + 1e-12).all()


@pytest.mark.parametrize("name", DENSITIES)
def test_both_predictions_agree_on_what_z_is(name):
    backbone = backbone_of(name)
    for step in PROCESS.steps[::33]:
        z = torch.randn(5, *backbone.latent_shape(), generator=torch.Generator().manual_seed(step.index))
        found = predict(backbone, z, step)
        assert found.eps.dtype == found.x0.dtype == torch.float32
        again = step.a * found.x0 + step.s * found.eps
        torch.testing.assert_close(again, z, rtol=1e-6, atol=1e-6)
        stronger = predict(backbone, z, step, scale=7.5)
        assert torch.equal(stronger.eps, found.eps)
        assert not found.correction.any()


@pytest.mark.parametrize("name", DENSITIES)
def test_gradients_go_through_the_prediction_and_the_picture(name):
    """d r(picture of x0(z)) / dz by central differences in float64."""
    backbone, step = backbone_of(name), PROCESS.steps[70]
    z = torch.randn(3, *backbone.latent_shape(), generator=torch.Generator().manual_seed(0)).double()
    reward = load("toy_linear" if name == "gaussian" else f"toy_{name}")

    def value(z):
        pictures = backbone.decode(predict(backbone, z, step).x0)
        return reward.of_coordinates(to_coordinates(pictures, reward.of_coordinates.dimension))

    assert torch.autograd.gradcheck(value, z.requires_grad_(), eps=1e-5, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dimension", [2, 3])
def test_coordinates_survive_being_pictures(dimension):
    x = torch.empty(500, dimension).uniform_(-128, 128, generator=torch.Generator().manual_seed(0))
    pictures = to_pictures(x, 8, 16)
    assert pictures.shape == (500, 3, 8, 16)
    assert pictures.dtype == torch.float32
    assert 0 <= float(pictures.min()) <= float(pictures.max()) <= 1
    torch.testing.assert_close(to_coordinates(pictures, dimension), x.double(), rtol=0, atol=8e-6)
    assert torch.equal(pictures[:, dimension:], torch.full_like(pictures[:, dimension:], 0.5))


@pytest.mark.parametrize("name", REWARDS)
def test_rewards_of_pictures_are_those_of_the_coordinates(name):
    reward = load(name)
    dimension = REWARDS[name].dimension
    x = 4 * torch.randn(50, dimension, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        reward.score(to_pictures(x, 8, 8), ["sample"] * 50), REWARDS[name](x).float(), rtol=1e-4, atol=1e-4
    )
    assert reward.score(to_pictures(x[:1] * 0 + 500, 8, 8).clamp(0, 1), ["sample"]) == pytest.approx(
        float(REWARDS[name](x[:1] * 0 + 128)), rel=1e-6
    )


def test_rows_can_tell_the_exact_coordinates():
    backbone = backbone_of("swiss_roll")
    z = torch.tensor([[1.5, -2.25, 0.1], [0, 0, 7]])[..., None, None]
    first, second = backbone.describe(z)
    assert first == pytest.approx({"x0": 1.5, "x1": -2.25, "x2": 0.1})
    assert second == {"x0": 0, "x1": 0, "x2": 7}


def test_maps_are_refused():
    backbone = backbone_of("gmm")
    conditioning = Conditioning.of([backbone.encode("sample", "")])
    with pytest.raises(ValueError, match="no attention maps"):
        backbone.predict(
            torch.zeros(1, 2, 1, 1), PROCESS.steps[0], conditioning, Guider(1.0), attention="both"
        )


class Impulse:
    """No noise but for a single draw, which is one."""

    def __init__(self, place):
        self.place = place

    def normal(self, purpose, step, round, shape):
        number = 0 if purpose == "initial" else 1 + step
        return torch.full(shape, float(number == self.place))


def test_the_loops_chain_on_a_gaussian_has_the_exact_mean_and_variance():
    """The chain is linear: its variance is the sum of squared responses to a unit of each of its 101 draws, no more."""
    backbone = AnalyticBackbone(gaussian(), CPU)
    number = 102
    pictures = Pictures(
        ["sample"] * number,
        Conditioning.of([backbone.encode("sample", "")] * number),
        torch.zeros(number, 1, 1),
        torch.zeros(number, dtype=torch.bool),
    )

    def streams(picture, particle):
        return Impulse(picture - 1)  # the first has no noise at all

    state = start(streams, number, 1, backbone.latent_shape(), CPU)
    state = run(Parts(*passes(backbone, 1.0, number), PROCESS), state, pictures, streams, Ledger(number))
    ends = state.z[..., 0, 0].double()
    variance = (ends[1:] - ends[0]).square().sum(0)
    assert ends[0].tolist() == pytest.approx([0.999936, -1.999872], abs=2e-6)
    assert variance.tolist() == pytest.approx([0.265645] * 2, abs=2e-6)
    exact = sampled_gaussian(PROCESS, gaussian())
    torch.testing.assert_close(ends[0], exact.means[0], rtol=0, atol=2e-6)
    torch.testing.assert_close(variance, exact.variance, rtol=0, atol=2e-6)
