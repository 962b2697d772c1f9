"""Recorded runs of released Feynman-Kac steering through our own parts, free-running from the recorded draws.

Ancestors of the released multinomial draws come in no order and ours ascend, so that no uniform numbers give the recorded
ones: they are put in where a group is resampled, after our own weights and decision have been compared with the recorded.
Slim copies come with the tests; ``--golden DIR`` replays every trace of a folder too.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pytest
import torch
from fakes import passes

from align.processes.ddim import ddim
from align.released.particles import ForgetfulSteering
from align.sampling.parts import Parts
from align.sampling.resampling import Resampling
from align.sampling.sampler import Population
from align.sampling.values import PosteriorMean

from .filters import (
    PARTICLES,
    SLIM,
    Differences,
    PictureReward,
    RecordedDraws,
    Replay,
    Trace,
    parametrize,
    pictures_of,
    redblue,
    tiny,
)

LIMITS = {
    "latents": 2e-4,
    "x0": 1e-5,
    "value": 5e-4,
    "statistic": 2e-3,
    "weights": 5e-3,
    "product": 5e-2,
    "final value": 5e-4,
    "final picture": 1,
}
"""Values are of 0 to 255, and a picture's numbers may round the other way; predictions relative to their largest entry (they
reach 40), weights and products, in which rates of up to 30 multiply values, as shares and logarithms."""


def pytest_generate_tests(metafunc):
    if "trace" in metafunc.fixturenames:
        parametrize(metafunc, "search", "fk_*", ("fk_max_default_floor", "fk_rt_last"))


@pytest.fixture(scope="module")
def trace(request):
    return FkTrace(*request.param)


@dataclass(frozen=True)
class RecordedResampling(Resampling):
    """Our own decision and weights, the recorded ancestors; what was decided is kept."""

    trace: Any = None

    def __call__(self, log_weights, draws, row):
        found = super().__call__(log_weights, draws, row)
        self.trace.decided[draws.step] = found.happened, torch.softmax(log_weights, 0)
        recorded = self.trace.get(f"step{draws.step}.indices")
        if found.happened and recorded is not None:
            found = replace(found, index=recorded)
        return found


class FkTrace(Trace):
    """A recorded run and our parts for it."""

    def __init__(self, folder, name):
        super().__init__(folder, "search", name)
        self.settings = self.facts["config"]
        self.steps = self.facts["steps"]
        self.at = tuple(one["index"] for one in self.facts["per_step"] if one["evaluated"])
        self.rate = self.settings["lmbda"]
        self.backbone = tiny("tiny-sd")
        self.decided = {}
        self.reward = PictureReward(lambda pictures: redblue((255 * pictures).round()))

    @property
    def pictures(self):
        return pictures_of(self.facts["prompt"], self.tensors["pos_embeds"], self.tensors["neg_embeds"])

    def parts(self, **changed):
        threshold = 0.5 if self.settings["adaptive_resampling"] else None
        start = {"floor": self.settings.get("reward_min_value", 0.0)} | changed
        resampling = RecordedResampling("multinomial", threshold, self)
        select = ForgetfulSteering(self.settings["potential_type"], self.rate, self.at, resampling, **start)
        value = PosteriorMean(self.backbone.decode)
        return Parts(
            *passes(self.backbone, self.facts["guidance_scale"], PARTICLES, reward=self.reward, value=value),
            ddim(self.backbone.scheduler_config, self.steps, self.facts["eta"]),
            select=select,
            select_children=True,
        )

    def draws(self, particle):
        def normals(purpose, step):
            return self.get("init_latents" if purpose == "initial" else f"step{step}.noise")

        return RecordedDraws(normals, lambda step: None, particle)

    @cached_property
    def whole_run(self):
        return self.replay(self.parts())

    def replay(self, parts):
        return Replay(parts, self.pictures, self.draws, Population(PARTICLES, PARTICLES, "best"), self.reward)


def test_the_whole_run_from_the_recorded_draws(trace):
    replay = trace.whole_run
    found = Differences(trace)
    for step, facts in enumerate(trace.facts["per_step"]):
        prefix = f"step{step}."
        children, selected = replay.selected[step]
        found.add("latents", children.z, prefix + "proposal")
        found.add("latents", selected.state.z, prefix + "latents_out")
        if step not in trace.at:
            assert step not in trace.decided
            continue
        happened, weights = trace.decided[step]
        assert happened is facts["resampled"]
        found.add("statistic", selected.state.statistic, prefix + "population_rs_after")
        if (product := trace.get(prefix + "product_after")) is not None:
            trace.tensors["log product"] = product.double().log()
            found.add("product", selected.state.twist, "log product")
        if happened:
            recorded = trace.tensors[prefix + "weights"].double()
            trace.tensors["shares"] = recorded / recorded.sum()
            found.add("weights", weights, "shares")
            assert selected.index.tolist() == trace.tensors[prefix + "indices"].tolist()
        else:
            assert selected.index.tolist() == list(range(PARTICLES))
    found.add("latents", replay.final.z, f"step{trace.steps - 1}.latents_out")
    trace.tensors["ranked"] = trace.tensors["final_rewards"].sort(descending=True).values
    found.add("final value", torch.tensor([one.info["value"] for one in replay.outcomes]), "ranked")
    assert found.beyond(LIMITS) == {}
    assert {"latents", "statistic", "product", "weights", "final value"} <= set(found.worst)


def test_the_predictions_and_values_of_every_step(trace):
    """Distinct particles only: copies are evaluated once, and the calls saved are those of the recorded indices."""
    replay = trace.whole_run
    found = Differences(trace)
    copies, network, values = torch.arange(PARTICLES), 0, 0
    for step in range(trace.steps):
        first = sorted(int((copies == one).nonzero()[0, 0]) for one in copies.unique())
        state, estimate = replay.evaluated[step]
        assert len(state.z) == len(first)
        network += len(first)
        for what, ours, key in (("latents", state.z, "latents_in"), ("x0", estimate.x0, "x0_pred")):
            if (recorded := trace.get(f"step{step}.{key}")) is not None:
                trace.tensors["distinct"] = recorded[first]
                found.add(what, ours, "distinct", relative=what == "x0")
        if step in trace.at:
            values += len(first)
            trace.tensors["distinct"] = trace.tensors[f"step{step}.rewards"][first]
            found.add("value", estimate.value, "distinct")
        indices = trace.get(f"step{step}.indices")
        copies = torch.arange(PARTICLES) if indices is None else indices
    (cost,) = replay.ledger.costs
    assert cost.network_forward == network < PARTICLES * trace.steps
    assert cost.decoder_forward == cost.reward_forward == values + PARTICLES
    assert found.beyond(LIMITS) == {}


def test_the_mended_method_does_not_replay():
    """Without the floor the particles whose weights were recorded as equal differ."""
    trace = FkTrace(SLIM, "fk_max_default_floor")
    trace.replay(trace.parts(floor=-math.inf))
    _, weights = trace.decided[2]
    recorded = trace.tensors["step2.weights"]
    assert (recorded[[1, 3]] == recorded[0]).all()
    assert (weights[[1, 3]] - weights[0]).abs().min() > 1e-3
