"""Recorded runs of the released DAS code through our own parts, free-running from the recorded draws.

Slim copies come with the tests; ``--golden DIR`` replays every trace of a folder too.
"""

import math
from dataclasses import replace
from functools import cached_property

import pytest
import torch
from fakes import passes

from align.processes.ddim import ddim
from align.processes.lcm import lcm
from align.released.lcm import released_lcm
from align.released.particles import StaleTempered
from align.released.tempering import PublishedLadder
from align.sampling.guidance import Guidance
from align.sampling.objective import Objective
from align.sampling.particles import Tempered
from align.sampling.parts import Parts
from align.sampling.resampling import Resampling, ess
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
    "latents": 1e-4,
    "eps": 5e-5,
    "x0": 1e-5,
    "gradient": 1e-4,
    "guidance": 1e-4,
    "reward": 2e-6,
    "twist": 1e-2,
    "log_weights": 1e-2,
    "increment": 1e-2,
    "ess": 1e-2,
    "temperature": 1e-4,
    "picture": 1e-5,
}
"""Gradients, guidance and predictions (which reach 45) relative to the largest entry; rewards are divided by 1e-4 or so,
hence the others."""

OBJECTIVE = Objective(preference=1, semantic=0, semantic_until=2, both_until=2, dynamic=False, clamp=True)


def pytest_generate_tests(metafunc):
    if "trace" in metafunc.fixturenames:
        parametrize(metafunc, "das", "*", ("trace_das_schedule", "trace_das_lcm"))


@pytest.fixture(scope="module")
def trace(request):
    folder, name = request.param
    return DasTrace(folder, name)


class DasTrace(Trace):
    """A recorded run and our parts for it."""

    def __init__(self, folder, name):
        super().__init__(folder, "das", name)
        self.settings = self.facts["config"]
        self.steps = self.settings["num_inference_steps"]
        self.alpha = self.settings["kl_coeff"]
        self.moves_with_particles = name.startswith("permuted")
        pipeline = self.facts["pipeline"].split()[0]
        self.backbone = tiny(pipeline)
        self.lcm = pipeline == "tiny-lcm"

    @property
    def reward(self):
        if self.facts["reward"]["name"] == "redblue":
            return PictureReward(redblue)
        target = self.tensors["target"]
        return PictureReward(lambda pictures: -(pictures - target).square().flatten(1).mean(dim=1))

    @property
    def pictures(self):
        states, pooled = self.tensors["cond.encoder_hidden_states"], self.get("cond.text_embeds")
        if self.lcm:
            return pictures_of(self.settings["prompt"], states[:1], torch.full_like(states[:1], torch.nan))
        half = len(states) // 2
        own, other = slice(half, half + 1), slice(0, 1)
        more = (None, None)
        if pooled is not None:
            more = (pooled[own], pooled[other]), self.tensors["cond.time_ids"][own]
        return pictures_of(self.settings["prompt"], states[own], states[other], *more)

    @property
    def tempering(self):
        rule, schedule = self.settings["tempering"], self.settings["tempering_schedule"]
        exponent = schedule if isinstance(schedule, int | float) else 1
        return PublishedLadder(
            rule={"FreeDoM": "freedom", None: "full"}.get(rule, rule),
            schedule={"exp": "exp", None: "full"}.get(schedule, "polynomial"),
            gamma=self.settings["tempering_gamma"],
            exponent=exponent,
            start=self.settings["tempering_start"],
            ess=self.settings["ess_threshold"],
        )

    def parts(self, stays=None):
        scale = self.settings["guidance_scale"]
        config, eta = self.backbone.scheduler_config, self.settings["eta"]
        resampling = Resampling(self.settings["resample_strategy"], self.settings["ess_threshold"])
        stays = not self.moves_with_particles if stays is None else stays
        select = (StaleTempered if stays else Tempered)(
            self.tempering, self.alpha, resampling, self.steps, scale
        )
        value = PosteriorMean(self.backbone.decode)
        return Parts(
            *passes(self.backbone, scale, PARTICLES, OBJECTIVE, self.reward, value=value),
            released_lcm(config, self.steps, eta) if self.lcm else ddim(config, self.steps, eta),
            Guidance(1.0, (1.0, 1.0, 1.0), "variance"),
            select=select,
            weigh=True,
        )

    def guides(self, step):
        """Whether a step is guided: as released, a consistency model's last but one is not."""
        return step >= self.tempering.first(self.steps) and not (self.lcm and step == self.steps - 2)

    def draws(self, particle):
        def normals(purpose, step):
            return self.get("init.latents" if purpose == "initial" else f"step{step:02d}.noise")

        def uniforms(step):
            return self.get(f"step{step:02d}.resample_uniforms")

        return RecordedDraws(normals, uniforms, particle)

    @cached_property
    def whole_run(self):
        return self.replay(self.parts())

    def replay(self, parts):
        population = Population(PARTICLES, 1, "weight")
        return Replay(parts, self.pictures, self.draws, population, self.reward)


def normalised(log_weights):
    return log_weights - torch.logsumexp(log_weights, 0)


def test_the_whole_run_from_the_recorded_draws(trace):
    replay = trace.whole_run
    found = Differences(trace)
    resampled = []
    carried, twist = torch.full((PARTICLES,), -math.log(PARTICLES)), torch.zeros(PARTICLES)
    for step in range(trace.steps):
        prefix = f"step{step:02d}."
        state, estimate = replay.evaluated[step]
        selected = replay.selected[step][1]
        after = selected.state
        resampled.append(bool(selected.trace[0]["resampled"]) if selected.trace else False)
        if (indices := trace.get(prefix + "resample_indices")) is None:  # before the first tempered step
            assert not selected.trace
            indices = torch.arange(PARTICLES)
        assert selected.index.tolist() == indices.flatten().tolist()
        found.add("latents", state.z, prefix + "latents")
        found.add("eps", estimate.eps, prefix + "noise_pred")
        found.add("x0", estimate.x0, prefix + "pred_x0", relative=True)
        if not selected.trace:
            continue
        scale = selected.trace[0]["temperature"]
        gradient = -selected.estimate.gradient / trace.alpha
        if trace.guides(step):
            found.add("gradient", -estimate.gradient / trace.alpha, prefix + "reward_grad", relative=True)
        if trace.guides(step) and not trace.moves_with_particles:
            tilt = (after.tilt * trace.alpha).view(-1, 1, 1, 1)
            found.add("guidance", tilt * gradient, prefix + "approx_guidance", relative=True)
        found.add("reward", estimate.value, prefix + "rewards")
        found.add("temperature", scale, prefix + "scale_factor")
        now = scale * estimate.value.double() / trace.alpha
        found.add("twist", now, prefix + "log_twist")
        before = normalised(state.log_weights - twist + now)
        found.add("increment", state.log_weights - carried - twist + now, prefix + "incremental_log_w")
        if (recorded := trace.get(prefix + "log_w_before")) is not None:
            trace.tensors[prefix + "normalised"] = normalised(recorded.double())
        found.add("log_weights", before, prefix + "normalised")
        found.add("log_weights", normalised(after.log_weights), prefix + "log_w_after")
        found.add("ess", selected.trace[0]["ess"], prefix + "ess")
        carried, twist = after.log_weights, after.twist
    assert [step for step, happened in enumerate(resampled) if happened] == trace.facts["resampled_at_steps"]
    finished = replay.selected[-1][1]
    found.add("latents", replay.final.z, "final.latents")
    found.add("reward", torch.tensor([scored_end(trace, z) for z in replay.final.z]), "final.rewards")
    found.add("log_weights", normalised(finished.log_weights).exp(), "final.normalized_w")
    if (series := trace.get("trace.ess")) is not None:
        trace.tensors["final.ess"] = series.flatten()[-1]
    if "sdxl" not in trace.name:  # There the last entry repeats the one before.
        found.add("ess", ess(finished.log_weights), "final.ess")
    (outcome,) = replay.outcomes
    assert outcome.info["particle"] == trace.facts["choice"]
    found.add("picture", outcome.picture[None], "final.output_image")
    assert found.beyond(LIMITS) == {}
    assert {"latents", "reward", "log_weights", "ess", "increment"} <= set(found.worst)


@torch.no_grad()
def scored_end(trace, z):
    return float(trace.reward.score(trace.backbone.decode(z[None]).clamp(0, 1), [""]))


def test_evaluations_are_those_of_the_recorded_run_without_its_waste(trace):
    replay = trace.whole_run
    (cost,) = replay.ledger.costs
    tempered = PARTICLES * (trace.steps - trace.tempering.first(trace.steps))
    guided = PARTICLES * sum(map(trace.guides, range(trace.steps)))
    assert cost.network_forward == PARTICLES * trace.steps
    assert cost.network_backward == cost.decoder_backward == cost.reward_backward == guided
    assert cost.decoder_forward == cost.reward_forward == tempered + PARTICLES


# ---------------------------------------------------------------- it can fail


def ancestors(replay, steps):
    return [selected.index.tolist() for _, selected in replay.selected[:steps]]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["trace_das_schedule", "permuted_das_schedule"])
def test_neither_trace_replays_with_the_other_ones_indexing(name):
    """The released fault, gradients and twists that stay behind, decides who survives."""
    trace = DasTrace(SLIM, name)
    replay = trace.replay(trace.parts(stays=trace.moves_with_particles))
    recorded = [trace.tensors[f"step{step:02d}.resample_indices"].tolist() for step in range(trace.steps)]
    assert [[one] for one in ancestors(replay, trace.steps)] != recorded
    assert (replay.final.z - trace.tensors["final.latents"]).abs().max() > 100 * LIMITS["latents"]


def test_a_consistency_models_trace_replays_with_its_quirks_alone():
    trace = DasTrace(SLIM, "trace_das_lcm")
    parts = trace.parts()
    mended = replace(parts, process=lcm(trace.backbone.scheduler_config, trace.steps))
    replay = trace.replay(mended)
    assert (replay.final.z - trace.tensors["final.latents"]).abs().max() > 100 * LIMITS["latents"]
