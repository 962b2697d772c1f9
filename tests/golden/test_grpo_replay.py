"""Recorded runs of Flow-GRPO's published sampler on a tiny Stable Diffusion 3, run freely from its start and its noise."""

import pytest
import torch

from align.backbones.base import Conditioning
from align.backbones.guider import Guider
from align.processes.sde import flow_grpo

from .flow import Trace, far, pytest_cases

STD = 1e-5
DENSITY = 1e-5
REST = 1e-4


def pytest_generate_tests(metafunc):
    pytest_cases(metafunc, "grpo_")


@pytest.fixture(scope="module")
def trace(request, golden, tmp_path_factory):
    return Trace(golden, request.param, tmp_path_factory.mktemp("grpo"))


@torch.no_grad()
def test_the_whole_run_is_the_recorded_one(trace):
    backbone, number = trace.backbone, len(trace.facts["steps"])
    process = flow_grpo(backbone.scheduler_config, number, trace.facts["noise_level"])
    own, other = trace.cond(), trace.cond("negative_")
    given = Conditioning(own.states, other.states, own.pooled, other.pooled)
    guides = Guider(trace.settings["guidance_scale"])
    z, worst = trace.tensors["s00/latents_in"], {}
    for step, facts in zip(process.steps, trace.facts["steps"], strict=True):

        def recorded(name, index=step.index):
            return trace.tensors[f"s{index:02d}/{name}"]

        worst["latents"] = max(worst.get("latents", 0), far(z, recorded("latents_in")))
        found = backbone.predict(z, step, given, guides, correction=False)
        kernel = process.kernel(found.x0, found.eps, step)
        assert kernel.std == pytest.approx(facts["std"], rel=STD)
        worst["mean"] = max(worst.get("mean", 0), far(kernel.mean, recorded("mean")))
        z = kernel.sample(recorded("noise"))
        density = torch.distributions.Normal(kernel.mean, kernel.std).log_prob(z).flatten(1).mean(dim=1)
        torch.testing.assert_close(density, recorded("log_prob_mean"), rtol=0, atol=DENSITY)
    worst["final"] = far(z, trace.tensors["final/latents"])
    worst["image"] = far(backbone.decode(z).clamp(0, 1), trace.tensors["final/image"])
    assert max(worst.values()) < REST, worst
