"""Kernel, way back and reading of outputs in closed form, for whatever shares of signal and noise a step has."""

import math
from dataclasses import replace

import pytest
import torch

from align.processes.base import (
    Level,
    ancestral,
    chain,
    clean_and_noise,
    kernel,
    noise_slope,
    renoise,
)

DIFFUSION = Level.of(500, 0.3), Level.of(400, 0.5)
FLOW = Level(700, 0.3, 0.7), Level(500, 0.5, 0.5)
TYPES = {"epsilon": DIFFUSION, "sample": DIFFUSION, "v_prediction": DIFFUSION, "velocity": FLOW}
BOTH = pytest.mark.parametrize("levels", [DIFFUSION, FLOW], ids=["diffusion", "flow"])


def step_of(levels, eta=1.0):
    (step,) = chain(levels, 1000, lambda here, there: eta * ancestral(here, there))
    return step


def drawn(number=3, seed=0):
    x0, eps = torch.randn(2, number, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return x0, eps


@BOTH
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_a_step_leaves_the_next_levels_share_of_signal_and_of_noise(levels, eta):
    """Of one x0 and standard normal eps, mean and deviation of z' are a' x0 and s'."""
    step = step_of(levels, eta)
    x0, _ = drawn()
    mean = kernel(x0, torch.zeros_like(x0), step).mean
    by_noise = kernel(torch.zeros_like(x0), torch.ones_like(x0), step).mean
    torch.testing.assert_close(mean, step.a_next * x0)
    torch.testing.assert_close(by_noise.square() + step.std**2, torch.full_like(x0, step.s_next**2))


def test_without_new_noise_a_flow_steps_as_euler_does():
    """z' = z + (sigma' - sigma) v with v = eps - x0."""
    step = step_of(FLOW, eta=0.0)
    x0, eps = drawn()
    z = step.a * x0 + step.s * eps
    found = kernel(x0, eps, step)
    assert found.std == 0
    torch.testing.assert_close(found.mean, z + (step.s_next - step.s) * (eps - x0))


@BOTH
def test_all_noise_renewed_is_the_posterior_of_the_forward_process(levels):
    """p(z' | z, x0) of z' ~ N(a' x0, s'^2) and z ~ N(r z', s^2 - (r s')^2) with r = a / a'."""
    step = step_of(levels)
    x0, eps = drawn()
    z, ratio = step.a * x0 + step.s * eps, step.a / step.a_next
    added = step.s**2 - (ratio * step.s_next) ** 2
    precision = 1 / step.s_next**2 + ratio**2 / added
    mean = (step.a_next * x0 / step.s_next**2 + ratio * z / added) / precision
    found = kernel(x0, eps, step)
    assert found.std == pytest.approx(precision**-0.5)
    torch.testing.assert_close(found.mean, mean)


@BOTH
def test_the_way_back_is_the_forward_process(levels):
    """Marginals compose: from N(a' x0, s'^2) to N(a x0, s^2), exactly."""
    step = step_of(levels)
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    by_next, by_noise = float(renoise(one, step, zero)), float(renoise(zero, step, one))
    assert by_next * step.a_next == pytest.approx(step.a)
    assert math.hypot(by_next * step.s_next, by_noise) == pytest.approx(step.s)


@pytest.mark.parametrize("kind", TYPES)
def test_what_an_output_stands_for_is_what_it_was_made_of(kind):
    step = step_of(TYPES[kind])
    x0, eps = drawn()
    outputs = {"epsilon": eps, "sample": x0, "v_prediction": step.a * eps - step.s * x0, "velocity": eps - x0}
    z = step.a * x0 + step.s * eps
    for found, expected in zip(clean_and_noise(outputs[kind], z, step, kind), (x0, eps), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", TYPES)
def test_the_noise_changes_with_the_output_by_its_slope(kind):
    step = step_of(TYPES[kind])
    one, two = drawn()
    z = torch.zeros_like(one)
    change = clean_and_noise(two, z, step, kind)[1] - clean_and_noise(one, z, step, kind)[1]
    torch.testing.assert_close(change, noise_slope(step, kind) * (two - one))


@pytest.mark.parametrize("kind", ["sample", "v_prediction", "velocity"])
def test_a_process_begins_with_noise_alone(kind):
    """There a is 0; only the clean latents of a noise prediction are undefined."""
    step = step_of((Level(1000, 0.0, 1.0), TYPES[kind][1]))
    output, z = drawn()
    x0, eps = clean_and_noise(output, z, step, kind)
    torch.testing.assert_close(eps, z)
    assert x0.isfinite().all()
    found = kernel(x0, eps, step)
    assert step.std == pytest.approx(step.s_next)  # nothing of z is worth keeping
    assert found.mean.isfinite().all()
    torch.testing.assert_close(renoise(found.mean, step, z), z)


def test_a_consistency_function_keeps_a_share_of_what_came_in():
    step = replace(step_of(DIFFUSION), c_out=0.8, c_skip=0.3)
    output, z = drawn()
    plain, _ = clean_and_noise(output, z, step_of(DIFFUSION), "epsilon")
    torch.testing.assert_close(clean_and_noise(output, z, step, "epsilon")[0], 0.8 * plain + 0.3 * z)


def test_an_unknown_kind_of_output_is_refused():
    output, z = drawn()
    with pytest.raises(ValueError, match="'score' is not supported"):
        clean_and_noise(output, z, step_of(DIFFUSION), "score")
