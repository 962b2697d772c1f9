"""Multistep consistency sampling against diffusers' scheduler, and by what its kernels have to be."""

from itertools import pairwise

import pytest
import torch
from diffusers import LCMScheduler
from fakes import SCHEDULE

from align.processes.base import clean_and_noise, renoise
from align.processes.lcm import boundary, lcm

CONFIG = {**SCHEDULE, "steps_offset": 0, "set_alpha_to_one": True}
SHAPE = (3, 4, 8, 8)


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("steps", [1, 2, 4, 8, 50])
def test_timesteps_are_diffusers(steps):
    scheduler = LCMScheduler.from_config(CONFIG)
    scheduler.set_timesteps(steps)
    found = lcm(CONFIG, steps).steps
    assert [step.time for step in found] == scheduler.timesteps.tolist()
    assert found[0].time == 999
    assert [step.index for step in found] == list(range(steps))
    assert [step.fraction for step in found] == [step.time / 1000 for step in found]


@pytest.mark.parametrize("steps", [1, 4, 8])
@pytest.mark.parametrize("more", [{}, {"timestep_scaling": 0.002}], ids=["published", "weak scaling"])
def test_every_step_is_diffusers(steps, more):
    """On random outputs of the network; a scaling at which z's own share is large as well."""
    scheduler = LCMScheduler.from_config({**CONFIG, **more})
    scheduler.set_timesteps(steps)
    process = lcm({**CONFIG, **more}, steps)
    z = normal(0, *SHAPE)
    for step in process.steps:
        eps = normal(1 + step.index, *SHAPE)
        theirs = scheduler.step(
            eps, int(step.time), z, generator=torch.Generator().manual_seed(100 + step.index)
        )
        x0, _ = clean_and_noise(eps, z, step, "epsilon")
        torch.testing.assert_close(x0, theirs.denoised, rtol=1e-5, atol=1e-5)
        kernel = process.kernel(x0, eps, step)
        ours = kernel.sample(normal(100 + step.index, *SHAPE))
        torch.testing.assert_close(ours, theirs.prev_sample, rtol=1e-5, atol=1e-5)
        z = theirs.prev_sample


def test_all_steps_but_the_last_draw_noise():
    process = lcm(CONFIG, 4)
    *others, last = [step.std for step in process.steps]
    assert last == 0
    assert all(std > 0.3 for std in others)
    x0 = normal(0, *SHAPE)
    kernel = process.kernel(x0, torch.full_like(x0, torch.nan), process.steps[-1])
    assert torch.equal(kernel.sample(normal(1, *SHAPE)), x0)
    with pytest.raises(ValueError, match="no density"):
        kernel.log_ratio(kernel, x0)


def test_clean_latents_come_out_whatever_the_schedule_calls_its_last_level():
    last = lcm({**CONFIG, "set_alpha_to_one": False}, 4).steps[-1]
    assert (last.a_next, last.s_next, last.time_next) == (1, 0, 0)


def test_steps_join_and_get_cleaner():
    steps = lcm(CONFIG, 8).steps
    assert all(step.a < step.a_next for step in steps)
    assert all((a.time_next, a.a_next, a.s_next) == (b.time, b.a, b.s) for a, b in pairwise(steps))


@pytest.mark.parametrize("index", [0, 3, 7])
def test_there_and_back_is_the_level_that_it_came_from(index):
    """Noised to t' and then further to t, clean latents are N(sqrt(abar) x0, 1 - abar)."""
    process = lcm(CONFIG, 8)
    step = process.steps[index]
    x0, number = 0.7, 40000
    one, two = torch.randn(2, number, 1, 1, 1, generator=torch.Generator().manual_seed(2))
    there = process.kernel(torch.full_like(one, x0), one, step).sample(one)
    back = renoise(there, step, two)
    assert float(back.mean()) == pytest.approx(step.a * x0, abs=0.02)
    assert float(back.std()) == pytest.approx(step.s, rel=0.02)


def test_the_consistency_function_is_z_itself_without_noise():
    assert boundary(0) == (0, 1)
    c_out, c_skip = boundary(10 * 259)
    assert (c_out, c_skip) == (pytest.approx(1, abs=1e-6), pytest.approx(0.25 / 2590**2, rel=1e-6))


@pytest.mark.parametrize("steps", [0, 51])
def test_more_steps_than_it_was_distilled_on_are_refused(steps):
    with pytest.raises(ValueError, match="1 to 50"):
        lcm(CONFIG, steps)
    assert len(lcm({**CONFIG, "original_inference_steps": 100}, 51).steps) == 51
