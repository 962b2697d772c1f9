"""What a scheduler file states is honoured or refused; steps lie where diffusers' DDIM has them, each beginning where one ends."""

from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler
from fakes import SCHEDULE

from align.processes.base import renoise
from align.processes.ddim import ddim
from align.processes.schedule import CLASSES, read_schedule, timesteps, unread
from align.sampling.guidance import Guidance
from align.sampling.objective import Terms
from align.sampling.state import Estimate

FILE = {"_class_name": "DDIMScheduler", **SCHEDULE}
SPACINGS = ("leading", "trailing", "linspace")


def stated(**changes):
    return read_schedule({key: value for key, value in (FILE | changes).items() if value != "left out"})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"_class_name": "EDMEulerScheduler"}, "_class_name=EDMEulerScheduler"),
        ({"_class_name": "FlowMatchHeunDiscreteScheduler"}, "_class_name=FlowMatchHeunDiscreteScheduler"),
        ({"_class_name": "CogVideoXDDIMScheduler"}, "_class_name=CogVideoXDDIMScheduler"),
        ({"_class_name": "left out"}, "_class_name=None"),
        ({"beta_start": "left out"}, "beta_start=null"),
        ({"beta_end": "0.012"}, "beta_end=0.012"),
        ({"beta_schedule": "left out"}, "beta_schedule=null"),
        ({"beta_schedule": "sigmoid"}, "beta_schedule=sigmoid"),
        ({"trained_betas": [0.1, 0.2]}, "trained_betas lists 2"),
        ({"trained_betas": "file"}, "trained_betas is no list"),
        ({"prediction_type": "flow_prediction"}, "prediction_type=flow_prediction"),
        ({"prediction_type": "sample"}, "prediction_type=sample"),
        ({"timestep_spacing": "karras"}, "timestep_spacing=karras"),
        ({"timestep_type": "continuous"}, "timestep_type=continuous"),
        ({"steps_offset": -1}, "steps_offset=-1"),
        ({"num_train_timesteps": 0.5}, "num_train_timesteps=0.5"),
        ({"set_alpha_to_one": "no"}, "set_alpha_to_one=no"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr=true"),
        ({"thresholding": True}, "thresholding=true"),
        ({"clip_sample": True}, "clip_sample=true"),
        ({"use_flow_sigmas": True}, "use_flow_sigmas=true"),
        ({"variance_type": "learned_range"}, "variance_type=learned_range"),
    ],
)
def test_what_cannot_be_sampled_is_named(changes, words):
    with pytest.raises(ValueError, match=words):
        stated(**changes)


def test_the_processes_of_all_classes_with_betas_are_the_same():
    levels = {tuple(ddim(stated(_class_name=name), 5, 1).steps) for name in CLASSES}
    assert len(levels) == 1


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "PNDMScheduler", "DDIMScheduler"])
def test_what_is_left_out_has_the_default_of_the_class(name):
    found = stated(_class_name=name, timestep_spacing="left out", set_alpha_to_one="left out")
    assert found["timestep_spacing"] == ("linspace" if name == "EulerDiscreteScheduler" else "leading")
    assert found["set_alpha_to_one"] is (name != "PNDMScheduler")


def test_a_last_level_that_is_stated_otherwise_is_the_last():
    file = {"set_alpha_to_one": "left out", "final_sigmas_type": "sigma_min"}
    assert ddim(stated(**file), 10, 1).steps[-1].a_next ** 2 == pytest.approx(1 - SCHEDULE["beta_start"])


def test_listed_betas_and_another_curve_are_those_of_the_process():
    betas = torch.linspace(0.001, 0.02, 1000).tolist()
    listed = stated(trained_betas=betas, beta_schedule="left out", beta_start="left out", beta_end="left out")
    kept = torch.cumprod(1 - torch.tensor(betas), 0)
    assert [one.a for one in ddim(listed, 7, 1).steps] == [
        float(kept[t]) ** 0.5 for t in timesteps(listed, 7)
    ]
    cosine = ddim(stated(beta_schedule="squaredcos_cap_v2", beta_start="left out"), 10, 1)
    theirs = DDIMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod
    assert [one.a for one in cosine.steps] == [float(theirs[int(one.time)]) ** 0.5 for one in cosine.steps]


def test_what_only_its_own_solver_reads_is_told():
    assert unread(FILE | {"solver_order": 2, "sample_max_value": 1.0, "use_karras_sigmas": False}) == []
    assert unread(FILE | {"use_karras_sigmas": True, "shift": 3.0}) == ["use_karras_sigmas=true", "shift=3.0"]


@pytest.mark.parametrize("spacing", SPACINGS)
def test_timesteps_are_diffusers_and_a_step_ends_where_the_next_begins(spacing):
    config = {**SCHEDULE, "timestep_spacing": spacing}
    theirs = DDIMScheduler(**config)
    for number in (1, 2, 7, 10, 13, 30, 50, 333, 999):
        theirs.set_timesteps(number)
        steps = ddim(config, number, 0).steps
        assert [one.time for one in steps] == theirs.timesteps.tolist()
        assert all((a.time_next, a.a_next, a.s_next) == (b.time, b.a, b.s) for a, b in pairwise(steps))


@pytest.mark.parametrize(
    ("training", "offset", "spacing", "steps", "most"),
    [
        (1000, 1, "leading", 1000, 999),
        (1000, 2, "leading", 500, 499),
        (100, 0, "trailing", 101, 100),
        (100, 0, "linspace", 300, 100),
    ],
)
def test_steps_without_timesteps_are_told_the_largest_number(training, offset, spacing, steps, most):
    config = {"num_train_timesteps": training, "steps_offset": offset, "timestep_spacing": spacing}
    with pytest.raises(ValueError, match=rf"is {most}$"):
        timesteps(config, steps)
    assert len(timesteps(config, most)) == most


@pytest.mark.parametrize("form", ["mean", "eps"])
def test_a_process_that_begins_without_any_signal_can_be_sampled_and_guided(form):
    config = stated(rescale_betas_zero_snr=True, prediction_type="v_prediction", timestep_spacing="trailing")
    process = ddim(config, 5, 1)
    first = process.steps[0]
    assert (first.a, first.s) == (0, 1)
    z, v = torch.randn(2, 1, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    one = torch.ones(1)
    found = Estimate(z, -v, v, v, one, torch.zeros_like(v), one, one, one.bool())
    moved = Guidance(1.0, (1.0, 1.0, 1.0), "constant", form).adjust(found, Terms(2, False, True), first, one)
    torch.testing.assert_close(
        first.a * moved.x0 + first.s * moved.eps, first.a * found.x0 + first.s * found.eps
    )
    kernel = process.kernel(moved.x0, moved.eps, first)
    assert torch.isfinite(kernel.mean).all()
    assert torch.isfinite(renoise(kernel.mean, first, v)).all()
