"""Where the steps of a flow lie, how much of their noise is new, and what their schedules refuse."""

import math
from itertools import pairwise

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler

from align.processes.flow import equal_timestep, flow
from align.processes.schedule import check_steps, is_flow, read_schedule, unread
from align.processes.sde import flow_grpo, vp_converted

FILE = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}
SD35 = read_schedule(FILE)
EPSILON = {"prediction_type": "epsilon"}
SCHNELL = read_schedule(FILE | {"shift": 1.0}) | {"spaced": True}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"invert_sigmas": True}, "invert_sigmas=true"),
        ({"shift": 0}, "shift=0"),
        ({"shift": "3"}, "shift=3"),
        ({"shift_terminal": 1.0}, "shift_terminal=1.0"),
        ({"time_shift_type": "cosine"}, "time_shift_type=cosine"),
        ({"use_dynamic_shifting": "yes"}, "use_dynamic_shifting=yes"),
        (
            {"use_karras_sigmas": True, "use_beta_sigmas": True},
            "use_karras_sigmas=true and use_beta_sigmas=true",
        ),
        ({"max_image_seq_len": 256}, "max_image_seq_len=256"),
    ],
)
def test_what_cannot_be_sampled_is_named(changes, words):
    with pytest.raises(ValueError, match=words):
        read_schedule(FILE | changes)


def test_a_flows_own_solver_is_not_read():
    assert unread(FILE | {"use_karras_sigmas": True, "base_shift": 0.5, "invert_sigmas": False}) == []
    assert unread(FILE | {"stochastic_sampling": True}) == ["stochastic_sampling=true"]


def test_a_single_step_is_refused_only_where_levels_are_stretched():
    check_steps(SD35, 1)
    assert is_flow(SD35)
    with pytest.raises(ValueError, match="least number is 2"):
        check_steps(read_schedule(FILE | {"shift_terminal": 0.1}), 1)


def test_a_dynamic_shift_needs_its_number():
    dynamic = read_schedule(FILE | {"use_dynamic_shifting": True})
    with pytest.raises(ValueError, match="mu"):
        flow(dynamic, 4, 1)
    assert flow(dynamic | {"mu": 1.15}, 4, 1).steps[0].s == 1


def test_a_step_ends_where_the_next_begins_and_the_last_at_clean_latents():
    steps = flow(SD35, 28, 1).steps
    assert all(
        (one.time_next, one.a_next, one.s_next) == (two.time, two.a, two.s) for one, two in pairwise(steps)
    )
    assert (steps[0].time, steps[0].a, steps[0].s) == (1000, 0, 1)
    assert (steps[-1].time_next, steps[-1].a_next, steps[-1].s_next) == (0, 1, 0)


KERNELS = {  # deviation between two levels, of eta 0.6
    "eta": lambda one: 0.6 * one.s_next * math.sqrt(1 - (one.a * one.s_next / (one.s * one.a_next)) ** 2),
    "cps": lambda one: one.s_next * math.sin(0.3 * math.pi),
    "stochastic": lambda one: 0.6 * one.s_next,
}


@pytest.mark.parametrize("kernel", KERNELS)
def test_how_much_of_the_noise_is_new(kernel):
    steps = flow(SD35, 10, 0.6, kernel).steps
    assert [one.std for one in steps] == [pytest.approx(KERNELS[kernel](one)) for one in steps]
    assert steps[-1].std == 0
    assert all(one.std == 0 for one in flow(SD35, 10, 0, kernel).steps)


@pytest.mark.parametrize("eta", [-0.1, 1.1])
def test_impossible_shares_are_refused(eta):
    with pytest.raises(ValueError, match="eta must be"):
        flow(SD35, 10, eta)


@pytest.mark.parametrize(
    ("s", "timestep"), [(0.929, 981), (0.836, 800), (0.618, 500), (0.364, 200), (0.040, 1)]
)
def test_stable_diffusions_timestep_of_equal_signal_to_noise_ratio(s, timestep):
    assert equal_timestep(1 - s, s) == pytest.approx(timestep, abs=1)


def test_beyond_stable_diffusions_timesteps_are_its_ends():
    assert (equal_timestep(0, 1), equal_timestep(0.999, 0.001)) == (999, 0)


def test_phases_lie_by_signal_and_noise_or_by_the_share_of_steps():
    """As many of the 28 steps of Stable Diffusion 3.5 lie in the paper's phases as its two limits say."""
    by_ratio = [one.fraction for one in flow(SD35, 28, 1).steps]
    counts = [
        sum(f >= 0.8 for f in by_ratio),
        sum(0.5 <= f < 0.8 for f in by_ratio),
        sum(f < 0.5 for f in by_ratio),
    ]
    assert counts == [11, 7, 10]
    by_share = [one.fraction for one in flow(SD35, 4, 1, phases="steps").steps]
    assert by_share == [1, 0.75, 0.5, 0.25]


def test_a_judge_of_noisy_pictures_is_told_that_timestep():
    steps = flow(SCHNELL, 4, 1).steps
    assert [one.timestep for one in steps] == [round(equal_timestep(one.a, one.s)) for one in steps]
    assert steps[0].timestep == 999


PROCESSES = {
    "eta 0": lambda steps: flow(SCHNELL, steps, 0.0),
    "eta 1": lambda steps: flow(SCHNELL, steps, 1.0),
    "flow_grpo": lambda steps: flow_grpo(SCHNELL, steps, 0.7),
    "vp": lambda steps: vp_converted(steps, 3.0, grid="linear"),
}


@pytest.mark.parametrize("name", PROCESSES)
def test_the_exact_velocity_of_gaussian_data_gives_back_its_mean_and_variance(name):
    mean, deviation, number = 0.8, 0.6, 40000
    process = PROCESSES[name](500)
    generator = torch.Generator().manual_seed(1)
    z = process.initial * torch.randn(number, 1, 1, 1, generator=generator)
    for step in process.steps:
        # Without signal the clean latents are their mean.
        known = (1 - step.s) * deviation**2 / ((1 - step.s) ** 2 * deviation**2 + step.s**2)
        x0 = mean + known * (z - (1 - step.s) * mean)
        z = process.kernel(x0, (z - step.a * x0) / step.s, step).sample(
            torch.randn(z.shape, generator=generator)
        )
    assert float(z.mean()) == pytest.approx(mean, abs=4 * deviation / number**0.5 + 0.01 * mean)
    assert float(z.var()) == pytest.approx(deviation**2, rel=4 * (2 / number) ** 0.5 + 0.02)


def test_flow_grpo_draws_noise_at_every_step_and_first_its_level():
    steps = flow_grpo(SD35, 10, 0.7).steps
    assert steps[0].std == pytest.approx(0.7)
    assert all(one.std > 0 for one in steps)


def test_the_crowded_grid_ends_far_from_clean():
    """RBF's ten levels; the last step is the prediction itself."""
    process = vp_converted(10, 3.0)
    levels = [round(one.s, 3) for one in process.steps]
    assert levels == [0.993, 0.993, 0.992, 0.99, 0.986, 0.978, 0.962, 0.929, 0.859, 0.709]
    last, (x0, eps) = process.steps[-1], torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    kernel = process.kernel(x0, eps, last)
    assert kernel.std == 0
    assert torch.equal(kernel.mean, x0)


def test_a_flow_whose_file_names_a_solver_of_diffusions_has_the_levels_of_that():
    stated = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    scheduler = DPMSolverMultistepScheduler(**stated)
    scheduler.set_timesteps(20)
    read = read_schedule({"_class_name": "DPMSolverMultistepScheduler", **stated})
    assert is_flow(read)
    steps = flow(read, 20, 0.0).steps
    torch.testing.assert_close(
        torch.tensor([*(step.s for step in steps), steps[-1].s_next]), scheduler.sigmas
    )
    with pytest.raises(ValueError, match="prediction_type=epsilon"):
        read_schedule({"_class_name": "DPMSolverMultistepScheduler", "use_flow_sigmas": True} | EPSILON)


def test_a_shift_can_grow_with_the_number_of_steps():
    dynamic = read_schedule(FILE | {"use_dynamic_shifting": True}) | {"spaced": True}
    grown = flow({**dynamic, "mu": 0.5, "mu_step": 0.01}, 10, 0.0)
    assert grown.steps == flow({**dynamic, "mu": 0.6}, 10, 0.0).steps
