"""Recorded guided runs on tiny flow transformers, a reward's gradient and repeated steps, through our own loop and its noise."""

from functools import cached_property

import pytest
import torch

from align.backbones.base import Conditioning
from align.backbones.guider import Guider
from align.processes.flow import flow
from align.rewards.base import Reward
from align.sampling.batching import Calls
from align.sampling.guidance import Guidance
from align.sampling.judge import Judge
from align.sampling.ledger import Ledger
from align.sampling.loop import run
from align.sampling.objective import Objective
from align.sampling.parts import Parts
from align.sampling.predict import Predict
from align.sampling.state import Pictures, State

from .flow import Trace, far, pytest_cases

GRADIENTS = 1e-3
REST = 1e-4


def pytest_generate_tests(metafunc):
    pytest_cases(metafunc, "guided_")


@pytest.fixture(scope="module")
def trace(request, golden, tmp_path_factory):
    return Guided(golden, request.param, tmp_path_factory.mktemp("guided"))


class Redness(Reward):
    """Mean of red minus mean of blue."""

    name = "redness"

    def score(self, pictures, prompts, step=None):
        means = pictures.mean(dim=(2, 3))
        return means[:, 0] - means[:, 2]


class AsRecorded:
    """Rounds of each step but the first, which is never asked about."""

    rule = "fixed"

    def __init__(self, rounds):
        assert rounds[0] == 0
        self.rounds = list(rounds[1:])

    def extra(self, estimate, terms, everywhere=False):
        return torch.full((len(estimate.loss),), self.rounds.pop(0))


class Guided(Trace):
    def normal(self, purpose, step, round, shape):
        name = {"step": "noise", "renoise": "renoise_noise"}[purpose]
        return self.tensors[f"s{step:02d}/k{round:02d}/{name}"][0]

    @cached_property
    def found(self):
        """What every evaluation came to, and the latents at the end."""
        settings, backbone, told = self.settings, self.backbone, []
        with torch.no_grad():
            own, other = (backbone.family.read(text) for text in (settings["prompt"], ""))
        given = Conditioning(own.states[None], other.states[None], own.pooled[None], other.pooled[None])
        pictures = Pictures(
            [settings["prompt"]], given, torch.zeros(1, 1, 1), torch.zeros(1, dtype=torch.bool)
        )
        scale = settings["guidance_scale"]
        objective = Objective(preference=1, semantic=0, semantic_until=2, both_until=2)
        parts = Parts(
            Predict(
                backbone, Guider(scale if backbone.guidance == "pair" else 1.0, embedded=scale), Calls(1)
            ),
            Judge(backbone, Calls(1), Redness(), objective),
            flow(backbone.scheduler_config, settings["steps"], settings["eta"]),
            Guidance(1.0, (settings["coefficient"],) * 3, settings["rule"]),
            AsRecorded(settings["rounds"]),
        )
        state = State.of(self.tensors["init/latents"], torch.zeros(1, dtype=torch.long))
        with torch.no_grad():
            end = run(parts, state, pictures, lambda *_: self, Ledger(1), told.append)
        return told, end.z


def test_every_evaluation_is_the_recorded_one(trace):
    told, _ = trace.found
    assert len(told) == len(trace.facts["evaluations"])
    worst = dict.fromkeys(("latents_in", "velocity", "grad"), 0.0)
    for info, facts in zip(told, trace.facts["evaluations"], strict=True):
        prefix, of = facts["prefix"], info.estimate
        assert prefix == f"s{info.step.index:02d}/k{info.round:02d}/"
        assert info.step.std == pytest.approx(facts["gamma"], rel=1e-5, abs=1e-6)
        assert float(of.loss) == pytest.approx(facts["loss"], abs=REST)
        ours = {"latents_in": info.state.z, "velocity": of.eps - of.x0, "grad": of.gradient}
        for name, mine in ours.items():
            worst[name] = max(worst[name], far(mine, trace.tensors[prefix + name]))
    assert worst.pop("grad") < GRADIENTS
    assert max(worst.values()) < REST, worst


def test_the_picture_is_the_recorded_one(trace):
    _, z = trace.found
    assert far(z, trace.tensors["final/latents"]) < REST
    assert far(2 * trace.backbone.decode(z) - 1, trace.tensors["final/decoded"]) < REST
