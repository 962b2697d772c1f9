"""Levels, kernels and frames of flows against recorded calls of diffusers, Flow-GRPO, RBF and Psi-Sampler.

Slim copies come with the tests; ``--golden DIR`` compares every case of a folder too.
"""

import json
import math

import pytest
import torch

from align.processes.base import Level, Process, ancestral, chain, clean_and_noise, renoise
from align.processes.flow import flow, levels
from align.processes.schedule import dynamic_shift, read_schedule
from align.processes.sde import diffusion, grpo_noise, move, preserving, straight

from .replay import SLIM, far

FUNCTIONS = 1e-4
LEVELS = 1e-6
DEVIATION = 1e-5
NAMES = {
    "spaced": "schedules",
    "tokens": "mu",
    "eta": "kernel_eta",
    "stochastic": "kernel_diffusers_stochastic",
    "grpo": "kernel_flow_grpo",
    "rbf": "kernel_rbf",
    "psi": "kernel_psi",
    "converted": "rbf_conversion",
    "back": "renoise_psi",
}


def pytest_generate_tests(metafunc):
    for fixture, name in NAMES.items():
        if fixture in metafunc.fixturenames:
            folders = {"slim": SLIM, "given": metafunc.config.getoption("--golden")}
            cases = [
                pytest.param(case, id=f"{kind}-{number}")
                for kind, folder in folders.items()
                if folder
                for number, case in enumerate(
                    json.loads((folder / f"flow/functions/{name}.json").read_text())
                )
            ]
            metafunc.parametrize(fixture, cases)


def numbers(case, *names):
    return [torch.tensor(case[name], dtype=torch.float64) for name in names]


def step_between(s, s_next, std):
    """The step of a flow from one level to another."""
    there, then = (Level(1000 * s, 1 - s, s) for s in (s, s_next))
    return chain([there, then], 1000, std)[0]


def agrees(case, kernel):
    mean, noise, z_next = numbers(case, "mean", "noise", "z_next")
    assert kernel.std == pytest.approx(case["std"], rel=DEVIATION, abs=1e-7)
    assert far(kernel.mean, mean) < FUNCTIONS
    assert far(kernel.sample(noise), z_next) < FUNCTIONS


def test_levels_and_times_are_diffusers(spaced):
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", **spaced["config"]}
    if config.get("invert_sigmas"):
        with pytest.raises(ValueError, match="invert_sigmas=true"):
            read_schedule(config)
        return
    number, given = spaced["steps"], spaced["sigmas_given"]
    schedule = read_schedule(config) | {"mu": spaced["mu"], "spaced": given is not None}
    if given is not None and given[-1] != pytest.approx(1 / number):
        pytest.skip("levels of the caller's own, which nothing here hands over")
    found = levels(schedule, number)
    assert far([level.s for level in found], spaced["sigmas"]) < LEVELS
    assert far([level.time for level in found[:-1]], spaced["timesteps"]) < LEVELS
    assert all(level.a == 1 - level.s for level in found)


def test_the_dynamic_shift_grows_with_the_tokens(tokens):
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True}
    assert dynamic_shift(read_schedule(config), tokens["tokens"]) == pytest.approx(tokens["mu"], rel=LEVELS)


def test_the_eta_kernel_is_ddims_on_the_scaled_state(eta):
    z, v = numbers(eta, "z", "v")
    step = step_between(eta["sigma"], eta["sigma_next"], lambda *two: eta["eta"] * ancestral(*two))
    agrees(eta, Process((step,)).kernel(*clean_and_noise(v, z, step, "velocity"), step))


def test_all_noise_anew_is_diffusers_stochastic_sampling(stochastic):
    z, v = numbers(stochastic, "z", "v")
    step = step_between(stochastic["sigma"], stochastic["sigma_next"], lambda here, there: there.s)
    agrees(stochastic, Process((step,)).kernel(*clean_and_noise(v, z, step, "velocity"), step))


def test_flow_grpos_kernel_and_its_density(grpo):
    given = "given" if "given" in grpo else "z_next"
    z, v, z_next = numbers(grpo, "z", "v", given)
    s, s_next = grpo["sigma"], grpo["sigma_next"]
    g = grpo_noise(grpo["noise_level"], s, grpo["sigma_second"])
    assert g == pytest.approx(grpo["g"], rel=DEVIATION)
    of_x0, of_eps, std = move(straight(s), s - s_next, g)
    x0, eps = z - s * v, z + (1 - s) * v
    kernel = torch.distributions.Normal(of_x0 * x0 + of_eps * eps, std)
    assert std == pytest.approx(grpo["std"], rel=DEVIATION)
    assert far(kernel.mean, numbers(grpo, "mean")[0]) < FUNCTIONS
    assert float(kernel.log_prob(z_next).mean()) == pytest.approx(
        grpo["log_prob_mean"], rel=DEVIATION, abs=FUNCTIONS
    )


def moved(case, path, g):
    """The kernel of a step along a path, of recorded states and velocities of that path."""
    point = path(case["r"])
    x, u, noise = numbers(case, "z", "u", "noise")
    x0, eps = torch.linalg.solve(
        torch.tensor([[point.a, point.b], [point.a_slope, point.b_slope]], dtype=torch.float64),
        torch.stack([x, u]),
    )
    of_x0, of_eps, std = move(
        point, case["dt"], g * diffusion(case.get("coefficient", "psi"), case["r"], point.b)
    )
    return x0, of_x0 * x0 + of_eps * eps, std, noise


def test_rbfs_kernel_with_each_shape_of_noise(rbf):
    path = preserving if rbf["convert"] == "vp" else straight
    x0, mean, std, noise = moved(rbf, path, rbf["norm"])
    assert std == pytest.approx(rbf["std"], rel=DEVIATION, abs=1e-9)
    for found, name in ((x0, "x0"), (mean, "mean"), (mean + std * noise, "z_next")):
        assert far(found, numbers(rbf, name)[0]) < FUNCTIONS, name


def test_psi_samplers_kernel(psi):
    _, mean, std, noise = moved(psi, preserving, 1.0)
    assert std == pytest.approx(psi["std"], rel=DEVIATION)
    assert far(mean, numbers(psi, "mean")[0]) < FUNCTIONS
    assert far(mean + std * noise, numbers(psi, "z_next")[0]) < FUNCTIONS


def test_a_variance_preserving_path_is_converted_to_the_flows_frame_and_back(converted):
    point = preserving(converted["r"])
    names = ("alpha_r", "sigma_r", "d_alpha_r", "d_sigma_r")
    assert list(point) == [pytest.approx(converted[name], rel=FUNCTIONS) for name in names]
    x, v = numbers(converted, "x", "v")
    whole = point.a + point.b
    s, z = point.b / whole, x / whole
    assert s == pytest.approx(converted["network_t"], rel=LEVELS)
    x0, eps = z - s * v, z + (1 - s) * v
    u = point.a_slope * x0 + point.b_slope * eps
    for found, name in ((z, "network_x"), (x0, "x0"), (u, "u")):
        assert far(found, numbers(converted, name)[0]) < FUNCTIONS, name


def test_psi_samplers_way_back_is_that_of_every_process(back):
    z, noise = numbers(back, "z", "noise")
    there, then = (Level(r, *preserving(r)[:2]) for r in (back["r"], back["r_from"]))
    found = renoise(z, chain([there, then], 1000, ancestral)[0], noise)
    assert far(found, numbers(back, "renoised")[0]) < FUNCTIONS


@pytest.mark.parametrize("number", [1, 4, 10, 28])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_flow_is_ddim_on_the_scaled_state(number, share):
    """Kernel and way back, divided by n = sqrt(a^2 + s^2), are those of a variance-preserving process of the same ratio."""
    schedule = read_schedule({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0})
    x0, eps, noise = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for step in flow(schedule, number, share).steps:
        n, n_next = math.hypot(step.a, step.s), math.hypot(step.a_next, step.s_next)
        scaled = [Level.of(0, (step.a / n) ** 2), Level.of(0, (step.a_next / n_next) ** 2)]
        other = chain(scaled, 1000, lambda *two: share * ancestral(*two))[0]
        here, there = (Process((one,)).kernel(x0, eps, one) for one in (step, other))
        assert here.std == pytest.approx(n_next * there.std, abs=1e-12)
        torch.testing.assert_close(here.mean, n_next * there.mean, rtol=0, atol=1e-12)
        back = n * renoise(x0, other, noise)
        torch.testing.assert_close(renoise(n_next * x0, step, noise), back, rtol=0, atol=1e-12)
