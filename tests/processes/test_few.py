"""Few steps against diffusers' schedulers that distilled models are sampled with, and by what their kernels have to be."""

from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler, EulerAncestralDiscreteScheduler, EulerDiscreteScheduler, LCMScheduler
from fakes import SCHEDULE, GaussianBackbone

from align.backbones.guider import Guider
from align.processes.base import clean_and_noise
from align.processes.few import few

SHAPE = (3, 4, 8, 8)


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("steps", "times"), [(1, [999]), (2, [999, 499]), (3, [999, 666, 332]), (4, [999, 749, 499, 249])]
)
def test_timesteps_trail_whatever_spacing_the_schedule_has(steps, times):
    assert [step.time for step in few(SCHEDULE, steps, 1).steps] == times
    assert [step.time for step in few({**SCHEDULE, "timestep_spacing": "linspace"}, steps, 1).steps] == times


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
@pytest.mark.parametrize(("eta", "kind"), [(0, EulerDiscreteScheduler), (1, EulerAncestralDiscreteScheduler)])
def test_every_step_is_eulers_in_other_coordinates(steps, eta, kind):
    """On random outputs of the network: x_euler = z / a."""
    scheduler = kind.from_config({**SCHEDULE, "timestep_spacing": "trailing"})
    scheduler.set_timesteps(steps)
    process = few(SCHEDULE, steps, eta)
    noise = normal(0, *SHAPE)
    x = noise * (scheduler.init_noise_sigma if eta else scheduler.sigmas[0])
    z = process.initial * noise
    for step, t in zip(process.steps, scheduler.timesteps, strict=True):
        torch.testing.assert_close(z, scheduler.scale_model_input(x, t), rtol=1e-4, atol=1e-4)
        output = normal(1 + step.index, *SHAPE)
        own = torch.Generator().manual_seed(100 + step.index)
        x = scheduler.step(output, t, x, generator=own).prev_sample
        x0, eps = clean_and_noise(output, z, step, "epsilon")
        z = process.kernel(x0, eps, step).sample(normal(100 + step.index, *SHAPE))
    torch.testing.assert_close(z, x, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("times", [[800], [399], [999, 749, 499, 249]])
def test_all_noise_new_is_a_consistency_models_step(times):
    scheduler = LCMScheduler.from_config(SCHEDULE)
    scheduler.set_timesteps(timesteps=times, original_inference_steps=1000)
    process = few(SCHEDULE, len(times), 1, "stochastic", "unit", times)
    assert process.initial == 1
    z = normal(0, *SHAPE)
    for step in process.steps:
        output = normal(1 + step.index, *SHAPE)
        own = torch.Generator().manual_seed(100 + step.index)
        theirs = scheduler.step(output, int(step.time), z, generator=own).prev_sample
        x0, eps = clean_and_noise(output, z, step, "epsilon")
        z = process.kernel(x0, eps, step).sample(normal(100 + step.index, *SHAPE))
        torch.testing.assert_close(z, theirs, rtol=1e-4, atol=1e-4)


def test_without_eta_it_is_ddim_from_a_schedule_that_ends_clean():
    stated = {**SCHEDULE, "timestep_spacing": "trailing", "set_alpha_to_one": True}
    scheduler = DDIMScheduler.from_config(stated)
    scheduler.set_timesteps(4)
    process = few(SCHEDULE, 4, 0, start="unit")
    z = normal(0, *SHAPE)
    for step in process.steps:
        output = normal(1 + step.index, *SHAPE)
        theirs = scheduler.step(output, int(step.time), z).prev_sample
        z = process.kernel(*clean_and_noise(output, z, step, "epsilon"), step).mean
        torch.testing.assert_close(z, theirs, rtol=1e-4, atol=1e-4)


def test_one_step_is_sigma_times_noise_less_prediction():
    """x0 = sigma (z - e): Euler's, of which the network sees sqrt(1 - abar) z."""
    (step,) = few(SCHEDULE, 1, 1).steps
    sigma = step.s / step.a
    assert sigma == pytest.approx(14.6146, abs=1e-3)
    noise, output = normal(0, *SHAPE), normal(1, *SHAPE)
    x0, _ = clean_and_noise(output, step.s * noise, step, "epsilon")
    torch.testing.assert_close(x0, sigma * (noise - output), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kernel", ["eta", "stochastic"])
def test_clean_latents_come_out_and_the_last_step_draws_nothing(kernel):
    steps = few(SCHEDULE, 4, 1, kernel).steps
    assert (steps[-1].a_next, steps[-1].s_next, steps[-1].std) == (1, 0, 0)
    assert all(step.std > 0.1 for step in steps[:-1])
    assert all((a.time_next, a.a_next, a.s_next) == (b.time, b.a, b.s) for a, b in pairwise(steps))
    assert [step.fraction for step in steps] == [step.time / 1000 for step in steps]


@pytest.mark.parametrize("kernel", ["eta", "stochastic"])
def test_new_noise_does_not_change_how_much_of_it_there_is(kernel):
    """Clean latents that are known come to N(a' x0, s'^2) at every level, however much of the noise is new."""
    x0, number = 0.7, 40000
    process = few(SCHEDULE, 4, 1, kernel)
    first = process.steps[0]
    z = first.a * x0 + first.s * normal(0, number, 1, 1, 1)
    for step in process.steps:
        eps = (z - step.a * x0) / step.s
        z = process.kernel(torch.full_like(z, x0), eps, step).sample(normal(1 + step.index, number, 1, 1, 1))
        assert float(z.mean()) == pytest.approx(step.a_next * x0, abs=0.02)
        assert float(z.std()) == pytest.approx(step.s_next, rel=0.02, abs=1e-6)


def test_one_step_of_a_point_mass_finds_it():
    """Where all data are one point the exact denoiser jumps there from anywhere."""
    mean = 0.8
    backbone = GaussianBackbone(mean, 1e-6, (1, 1, 1))
    process = few(SCHEDULE, 1, 1)
    z = process.initial * normal(0, 50, 1, 1, 1)
    (step,) = process.steps
    found = backbone.predict(z, step, None, Guider(1))
    z = process.kernel(found.x0, found.eps, step).mean
    torch.testing.assert_close(z, torch.full_like(z, mean), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("steps", "times", "said"),
    [
        (2, [999], "are not 2 that fall"),
        (2, [499, 999], "are not 2 that fall"),
        (2, [499, 499], "are not 2 that fall"),
        (1, [1000], "the largest is 999"),
        (0, None, "largest number"),
        (1001, None, "largest number"),
    ],
)
def test_timesteps_that_are_not_there_are_refused(steps, times, said):
    with pytest.raises(ValueError, match=said):
        few(SCHEDULE, steps, 1, times=times)


@pytest.mark.parametrize("eta", [-0.1, 1.1])
def test_impossible_eta_is_refused(eta):
    with pytest.raises(ValueError, match="eta must be 0 to 1"):
        few(SCHEDULE, 1, eta)
