"""Steps that are small generations, against what is known of one Gaussian."""

import math

import pytest
import torch
from fakes import CPU, SCHEDULE, FakeBackbone, FakeFlow, FakeReward, GaussianBackbone

from align.commands.parser import parse
from align.config.compose import jobs_of
from align.config.errors import ConfigError
from align.processes.base import kernel
from align.processes.ddim import ddim, scheduler_of
from align.processes.glass import between, glass
from align.runner import build
from align.runner.estimate import network_evaluations
from align.sampling.batching import Calls
from align.sampling.sampler import Request
from align.semantics.sources import no_pairs

FLOW = {"prediction_type": "velocity", "shift": 1.0, "shift_terminal": None}
VP = {**SCHEDULE, "trained_betas": None}
MEAN, SPREAD = 0.7, 1.3


def moved(process, step, noise, z=0.4):
    """One next state of the exact denoiser of N(mean, spread^2), in float64."""
    backbone = GaussianBackbone(MEAN, SPREAD, (1, 1, 1))
    z, noise = (torch.full((1, 1, 1, 1), one, dtype=torch.float64) for one in (z, noise))
    predict = lambda z, step: backbone.predict(z, step).x0  # noqa: E731
    found = backbone.predict(z, step)
    proposal = process.kernel(found.x0, found.eps, step)
    return float(process.draw(proposal, z, found.x0, step, noise, predict))


def exact(rho, step, z=0.4):
    """Mean and variance of the next state given z: of x given z by Bayes, and of the transition that rho couples."""
    kept = step.a * step.s_next / (step.s * step.a_next) if rho is None else rho
    variance = 1 / (1 / SPREAD**2 + step.a**2 / step.s**2)
    mean = variance * (MEAN / SPREAD**2 + step.a * z / step.s**2)
    g = kept * step.s_next / step.s
    a1 = step.a_next - g * step.a
    return g * z + a1 * mean, a1**2 * variance + step.s_next**2 * (1 - kept**2)


@pytest.mark.parametrize("schedule", [VP, FLOW], ids=["diffusion", "flow"])
@pytest.mark.parametrize("rho", [None, 0.4, 0.9])
def test_the_mean_is_exact_and_the_spread_becomes_so_with_inner_calls(schedule, rho):
    found = {}
    for inner in (1, 4, 40, 400):
        process = glass(schedule, 4, rho, inner)
        step = process.steps[1]
        mean, one = (moved(process, step, noise) for noise in (0.0, 1.0))
        found[inner] = (one - mean) ** 2
        assert mean == pytest.approx(exact(rho, step)[0], abs=2e-6)
    variance = exact(rho, step)[1]
    assert found[1] == pytest.approx(step.std**2)
    assert found[1] < found[4] < found[40] < found[400] < variance
    assert found[40] == pytest.approx(variance, rel=0.1)
    assert found[400] == pytest.approx(variance, rel=0.01)


@pytest.mark.parametrize("rho", [None, 0.4])
def test_with_one_call_it_is_ddim_and_as_ancestral_as_rho_says(rho):
    process, ancestral = glass(VP, 5, rho, 1), ddim(SCHEDULE, 5, 1.0)
    generator = torch.Generator().manual_seed(0)
    x0, eps, noise = torch.randn(3, 2, 3, 4, 4, generator=generator, dtype=torch.float64)
    for step, usual in zip(process.steps[:-1], ancestral.steps, strict=False):
        if rho is None:
            assert step.std == pytest.approx(usual.std)
        z = step.a * x0 + step.s * eps
        drawn = process.draw(process.kernel(x0, eps, step), z, x0, step, noise, None)
        torch.testing.assert_close(drawn, kernel(x0, eps, step).sample(noise))
    assert process.steps[-1].std == 0


def test_levels_between_those_of_a_schedule():
    level, abar = between(VP), scheduler_of(SCHEDULE).alphas_cumprod.double()
    for t in (1, 37, 500, 998):
        found = level(float(abar[t] / (1 - abar[t])))
        assert (found.time, found.a) == (pytest.approx(t), pytest.approx(math.sqrt(abar[t])))
    middle = level(float((abar[37] / (1 - abar[37]) * abar[38] / (1 - abar[38])) ** 0.5))
    assert middle.time == pytest.approx(37.5)
    assert middle.a**2 + middle.s**2 == pytest.approx(1)


METHODS = [
    ["method=none"],
    ["method=best_of_n", "method.particles=2"],
    ["method=svdd", "method.search.candidates=2"],
    ["method=fk", "method.particles=2"],
    [
        "method=local_search",
        "method.local_search.drafts=1",
        "method.local_search.children=[2]",
        "method.local_search.begin=[0.5]",
    ],
    ["method=svdd", "method.search.candidates=2", "method.value.estimate=lookahead"],
]


def config_of(*options):
    return jobs_of(parse(["sampler=glass", "sampler.steps=4", "sampler.inner=3", *options]))[0].config


@pytest.mark.parametrize("world", [FakeBackbone, FakeFlow])
@pytest.mark.parametrize("options", METHODS, ids=" ".join)
def test_methods_choose_among_its_states_at_the_cost_that_is_planned(world, options):
    config = config_of(*options)
    requests = [Request("red cat", seed=1), Request("blue dog", seed=1)]

    def made(requests, backbone):
        sampler = build.assemble(config, backbone, FakeReward(), no_pairs, Calls(1), CPU)
        return sampler.sample(requests)

    backbone = world()
    both = made(requests, backbone)
    assert network_evaluations(config) == (both[0].cost.network_forward,) * 2
    assert backbone.counts["network_forward"] == sum(one.cost.network_forward for one in both)
    (alone,) = made(requests[1:], world())
    assert torch.equal(alone.picture, both[1].picture)


@pytest.mark.parametrize(
    ("options", "mend"),
    [
        (["method=das"], "gradients move Gaussian steps"),
        (["method=smc"], "weighs by the densities"),
        (["method=rbf"], "method.rollover draws from"),
        (["method=none", "sampler.eta=0"], "leave it at 1"),
        (["method=none", "sampler=ddim", "sampler.inner=2"], "is read with sampler.kind=glass only"),
    ],
)
def test_what_it_cannot_do_is_one_line(options, mend):
    with pytest.raises(ConfigError, match=mend) as said:
        config_of(*options)
    assert "\n" not in str(said.value)
