"""Whole guided runs of flow transformers: the gradient of a reward through decoder and network, step rules, the kernel's noise,
repeated steps.  Of our loop's own parts, from the recorded start and draws.
"""

import pytest
import torch
from fakes import passes

from align.backbones.base import Conditioning
from align.processes.flow import flow
from align.rewards.base import Reward
from align.sampling.guidance import Guidance
from align.sampling.ledger import Ledger
from align.sampling.loop import run, start
from align.sampling.objective import Objective
from align.sampling.parts import Parts
from align.sampling.state import Pictures

from .flow import CPU, Trace, far, pytest_cases


def pytest_generate_tests(metafunc):
    pytest_cases(metafunc, "guided_")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("flow")


@pytest.fixture(scope="module")
def trace(request, golden, folder):
    return Trace(golden, request.param, folder)


class Redness(Reward):
    """Mean of red less mean of blue."""

    name = "redness"
    differentiable = True
    device = CPU

    def score(self, pictures, prompts, step):
        return pictures[:, 0].mean(dim=(1, 2)) - pictures[:, 2].mean(dim=(1, 2))


class Draws:
    """A trace's noise in place of a stream."""

    def __init__(self, tensors):
        self.tensors = tensors

    def normal(self, purpose, step, round, shape):
        if purpose == "initial":
            return self.tensors["init/latents"][0]
        name = {"step": "noise", "renoise": "renoise_noise"}[purpose]
        return self.tensors[f"s{step:02d}/k{round:02d}/{name}"][0]


class Listed:
    """Recurrence by a list of rounds, one number a step."""

    rule = "listed"

    def __init__(self, rounds):
        self.rounds = list(rounds)

    def extra(self, estimate, terms, everywhere=False):
        return torch.tensor([self.rounds.pop(0)])


def test_the_whole_run_is_the_recorded_one(trace):
    settings, backbone = trace.settings, trace.backbone
    scale = settings["guidance_scale"]
    read = [backbone.encode(settings["prompt"], "")]
    parts = Parts(
        *passes(
            backbone,
            scale,
            1,
            Objective(preference=1.0, semantic=0.0, semantic_until=2.0, both_until=2.0),
            Redness(),
        ),
        flow(backbone.scheduler_config, settings["steps"], settings["eta"]),
        Guidance(1.0, (settings["coefficient"],) * 3, settings["rule"]),
        Listed(settings["rounds"][1:]),  # of pure noise nothing is repeated
    )
    assert [step.s for step in parts.process.steps] == pytest.approx(trace.facts["sigmas"][:-1], abs=1e-6)
    length = len(read[0].offsets)
    pictures = Pictures(
        [settings["prompt"]],
        Conditioning.of(read),
        torch.zeros(1, length, length),
        torch.tensor([False]),
    )
    draws = Draws(trace.tensors)
    worst = {}

    def compare(info):
        name = f"s{info.step.index:02d}/k{info.round:02d}/"
        found, recorded = info.estimate, trace.tensors
        differences = {
            "latents": far(info.state.z, recorded[f"{name}latents_in"]),
            "velocity": far(found.eps - found.x0, recorded[f"{name}velocity"]),
            "gradient": far(found.gradient, recorded[f"{name}grad"]),
        }
        for key, value in differences.items():
            worst[key] = max(worst.get(key, 0.0), value)

    streams = lambda number, particle: draws  # noqa: E731
    state = start(streams, 1, 1, backbone.latent_shape(), CPU)
    with torch.no_grad():
        end = run(parts, state, pictures, streams, Ledger(1), compare)
        worst["final"] = far(end.z, trace.tensors["final/latents"])
        worst["decoded"] = far(2 * backbone.decode(end.z) - 1, trace.tensors["final/decoded"])
    limits = {"gradient": 1e-3}
    assert {key: value for key, value in worst.items() if not value <= limits.get(key, 1e-4)} == {}, worst
    evaluations = [one["prefix"] for one in trace.facts["evaluations"]]
    assert len(evaluations) == settings["steps"] + sum(settings["rounds"])
