import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from fakes import SCHEDULE, GaussianBackbone
from safetensors.torch import load_file

from align.backbones.guider import Guider
from align.processes.base import clean_and_noise, renoise
from align.processes.ddim import ddim

DATA = Path(__file__).parents[1] / "golden" / "data"
FACTS = json.loads((DATA / "ddim.json").read_text())
RECORDED = load_file(DATA / "ddim.safetensors")


@pytest.mark.parametrize("number", ["50", "12", "10"])
def test_timesteps_are_the_published_ones(number):
    assert [step.time for step in ddim(SCHEDULE, int(number), 1).steps] == FACTS["timesteps"][number]


@pytest.mark.parametrize("case", FACTS["cases"], ids=lambda case: case["key"])
def test_a_step_is_the_recorded_one(case):
    process = ddim(SCHEDULE, case["num_steps"], case["eta"])
    step = process.steps[case["index"]]
    assert (step.time, step.time_next) == (case["t"], case["t_prev"])
    x0, eps = clean_and_noise(RECORDED["model_output"], RECORDED["sample"], step, case["prediction_type"])
    kernel = process.kernel(x0, eps, step)
    z_next = kernel.sample(RECORDED["variance_noise"])
    ours = {
        "pred_x0": x0,
        "prev": z_next,
        "log_prob": torch.distributions.Normal(kernel.mean, kernel.std).log_prob(z_next).flatten(1).mean(1),
        "renoised": renoise(z_next, step, RECORDED["renoise_noise"]),
    }
    for name, value in ours.items():
        recorded = RECORDED[f"{case['key']}/{name}"]
        assert (value - recorded).abs().max() <= 2e-5 * recorded.abs().max(), name


def test_without_eta_a_step_is_deterministic_and_has_no_density():
    process = ddim(SCHEDULE, 10, 0)
    z = torch.zeros(1, 1, 2, 2)
    kernel = process.kernel(z, z, process.steps[3])
    assert kernel.std == 0
    with pytest.raises(ValueError, match="no density"):
        kernel.log_ratio(kernel, z)


def test_a_fully_ancestral_kernel_is_the_posterior_of_the_forward_process():
    """p(z' | z, x0) from z' ~ N(sqrt(abar') x0, 1 - abar') and z ~ N(sqrt(r) z', 1 - r), r = abar / abar'."""
    process = ddim(SCHEDULE, 20, 1)
    x0, z = torch.randn(2, 3, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for step in process.steps:
        eps = (z - step.a * x0) / step.s
        kernel = process.kernel(x0, eps, step)
        ratio = (step.a / step.a_next) ** 2
        precision = 1 / step.s_next**2 + ratio / (1 - ratio)
        mean = step.a_next * x0 / step.s_next**2 + ratio**0.5 * z / (1 - ratio)
        assert kernel.std**2 == pytest.approx(1 / precision)
        torch.testing.assert_close(kernel.mean, mean / precision)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_exact_score_of_gaussian_data_gives_back_its_mean_and_variance(eta):
    mean, deviation, number = 0.8, 0.6, 40000
    backbone = GaussianBackbone(mean, deviation, (1, 1, 1))
    process = ddim(SCHEDULE, 500, eta)
    generator = torch.Generator().manual_seed(1)
    first = process.steps[0]
    # From the true marginal at the noisiest step; pure noise would miss what is left of the signal there.
    z = first.a * mean + ((first.a * deviation) ** 2 + first.s**2) ** 0.5 * torch.randn(
        number, 1, 1, 1, generator=generator
    )
    for step in process.steps:
        found = backbone.predict(z, step, None, Guider(1))
        z = process.kernel(found.x0, found.eps, step).sample(torch.randn(z.shape, generator=generator))
    # Four standard errors, and 0.5 % for the finite number of steps.
    assert float(z.mean()) == pytest.approx(mean, abs=4 * deviation / number**0.5 + 0.005 * mean)
    assert float(z.var()) == pytest.approx(deviation**2, rel=4 * (2 / number) ** 0.5 + 0.005)


def test_travelling_there_and_back_keeps_the_marginal():
    """A step down with the true clean latents and one back up leave z distributed as it was."""
    process = ddim(SCHEDULE, 10, 1)
    step = process.steps[5]
    z, one, two = torch.randn(3, 40000, 1, 1, 1, generator=torch.Generator().manual_seed(2))
    x0 = 0.7
    noisy = step.a * x0 + step.s * z
    back = renoise(process.kernel(torch.tensor(x0), z, step).sample(one), step, two)
    assert float(back.mean()) == pytest.approx(float(noisy.mean()), abs=0.02)
    assert float(back.std()) == pytest.approx(float(noisy.std()), rel=0.02)


@pytest.mark.parametrize(("steps", "eta"), [(0, 1), (1001, 1), (10, -0.1), (10, 1.1)])
def test_impossible_steps_and_eta_are_refused(steps, eta):
    with pytest.raises(ValueError, match=r"must be|largest number"):
        ddim(SCHEDULE, steps, eta)


def test_every_training_step_is_refused_where_the_offset_leaves_no_room():
    with pytest.raises(ValueError, match=r"largest number up to there is 999$"):
        ddim(SCHEDULE, 1000, 1)
    assert len(ddim({**SCHEDULE, "steps_offset": 0}, 1000, 1).steps) == 1000


def test_the_last_step_ends_at_the_schedules_final_level():
    assert ddim({**SCHEDULE, "set_alpha_to_one": True, "steps_offset": 0}, 10, 1).steps[-1].a_next == 1
    last = ddim(SCHEDULE, 10, 1).steps[-1]
    assert last.a_next**2 == pytest.approx(1 - 0.00085)


def test_steps_get_cleaner_and_fractions_follow_the_timestep():
    steps = ddim(SCHEDULE, 25, 1).steps
    assert all(step.a < step.a_next for step in steps)
    assert all(a.time_next == b.time for a, b in pairwise(steps))
    assert [step.fraction for step in steps] == [step.time / 1000 for step in steps]
