"""Recorded runs of the released DyMO scripts through our own parts, within the limits that a faithful program keeps.

Slim copies come with the tests; ``--golden DIR`` replays every trace of a folder too.
"""

import pytest
import torch

from align.backbones.guider import Guider
from align.processes.base import renoise
from align.sampling.ledger import Ledger
from align.sampling.loop import Loop, run, start
from align.sampling.noise import Draws
from align.sampling.parts import wants
from align.sampling.views import ViewDraws, views
from align.semantics.attention_loss import semantic_loss

from .replay import CPU, SLIM, Trace, far, parameters, traces

LIMITS = {
    "eps": 1e-4,
    "x0": 1e-4,
    "correction_norm": 1e-4,
    "attention": 1e-4,
    "picture": 1e-4,
    "scores": 1e-4,
    "semantic_loss": 1e-3,
    "total_loss": 1e-3,
    "gradient": 1e-3,
    "rho": 1e-3,
    "latents_out": 1e-4,
    "renoised": 1e-4,
}


def pytest_generate_tests(metafunc):
    if "trace" in metafunc.fixturenames:
        folders = [SLIM, metafunc.config.getoption("--golden")]
        cases = [(folder, name) for folder in folders if folder for name in traces(folder)]
        soon = ("trace_sd_full", "trace_sdxl_full")
        metafunc.parametrize("trace", parameters(cases, soon), indirect=True, scope="module")


@pytest.fixture(scope="module")
def trace(request):
    return Trace(*request.param)


def test_phases_are_those_of_the_step_indices(trace):
    for step, recorded in zip(trace.process.steps, trace.facts["steps"], strict=True):
        terms = trace.objective.terms(step)
        assert step.time == recorded["t"]
        guided = terms.preference or (terms.semantic and bool(trace.pictures.has_pairs.any()))
        assert guided is recorded["guided"]
        if guided:
            assert terms.phase + 1 == recorded["phase"]


def test_every_evaluation_fed_with_the_recorded_latents(trace):
    worst = {}
    previous = None
    for record in trace.facts["evaluations"]:
        recorded = trace.recorded(record["prefix"])
        step = trace.process.steps[record["step"]]
        if (
            record["k"] == 0
            and step.index
            and (plain := f"s{step.index - 1:02d}/plain/pred_x0") in trace.tensors
        ):
            previous = trace.tensors[plain]
        z = recorded["latents_in"]
        state = trace.state(z, recorded.get("pred_x0_prev", previous))
        previous = recorded["pred_x0"]
        draws = Draws.of(lambda *_: trace.draws, state, step.index, record["k"])
        loop = Loop(trace.parts, trace.pictures, lambda *_: trace.draws, Ledger(1))
        found = loop.evaluate(state, step, wants(trace.parts, step, state, trace.pictures), draws)
        terms = trace.objective.terms(step)
        with torch.no_grad():
            maps = trace.backbone.predict(
                z, step, trace.pictures.conditioning, Guider(trace.scale), "both"
            ).attention
        proposal = trace.process.kernel(found.x0, found.eps, step)
        shift = trace.parts.guidance.shift(found, terms, step, state.tilt)
        out = proposal.shifted(shift).sample(recorded["variance_noise"])
        total = record["total_loss"]
        differences = {
            "x0": far(found.x0, recorded["pred_x0"]),
            "correction_norm": far(found.correction.norm(), record["correction_norm"]),
            "semantic_loss": abs(
                float(semantic_loss(maps, trace.pictures.pair_weights)) - record["loss_cos"]
            ),
            "total_loss": far(found.loss[0], total),
            "gradient": far(found.gradient, recorded["grad"]),
            "rho": far(shift.norm() / found.gradient_norm[0], record["rho"]),
        }
        if "eps" in recorded:
            differences["eps"] = far(found.eps, recorded["eps"])
        if "attn" in recorded:
            differences["attention"] = far(maps[0], recorded["attn"])
        if "latents_out" in recorded:
            differences["latents_out"] = far(out, recorded["latents_out"])
        if "decoded_x0" in recorded:
            with torch.no_grad():
                picture = trace.backbone.decode(found.x0)
            differences["picture"] = far(2 * picture - 1, recorded["decoded_x0"])
            differences["scores"] = far(scores_of(trace, picture, step, draws), recorded["scores"][None])
        if "renoised" in recorded:
            renoised = renoise(out, step, recorded["renoise_noise"])
            differences["renoised"] = far(renoised, recorded["renoised"])
        if record["decides_rounds"]:
            assert int(trace.parts.recurrence.extra(found, terms)) == record["num_optimization"]
        for name, value in differences.items():
            worst[name] = max(value, worst.get(name, 0.0))
    print("teacher-forced:", {name: f"{value:.1e}" for name, value in worst.items()})
    assert {name: value for name, value in worst.items() if not value <= LIMITS[name]} == {}


@torch.no_grad()
def scores_of(trace, picture, step, draws):
    """Scores (1, V) of a picture (1, 3, H, W) and its altered copies."""
    shown = picture[:, None]
    if trace.objective.copies:
        shown = torch.cat([shown, views(picture, ViewDraws.of(draws.uniform, trace.objective.copies))], dim=1)
    number = shown.shape[1]
    times = torch.full((number,), int(step.time))
    return trace.reward.score(shown[0], [trace.prompt] * number, times)[None]


def test_the_whole_run_from_the_recorded_draws(trace):
    latents, rounds, ledger = {}, [0] * trace.number, Ledger(1)

    def watch(info):
        rounds[info.step.index] = info.round
        latents.setdefault(info.step.index, info.state.z)

    with torch.no_grad():
        state = start(lambda *_: trace.draws, 1, 1, trace.backbone.latent_shape(), CPU)
        state = run(trace.parts, state, trace.pictures, lambda *_: trace.draws, ledger, on_evaluation=watch)
    assert rounds == [step["rounds"] for step in trace.facts["steps"]]
    evaluations = len(trace.facts["evaluations"])
    assert ledger.costs[0].network_backward == evaluations
    plain = sum(not step["guided"] for step in trace.facts["steps"])
    assert ledger.costs[0].network_forward == evaluations + plain
    judged = sum(record["phase"] > 1 for record in trace.facts["evaluations"])
    assert ledger.costs[0].decoder_forward == judged
    assert ledger.costs[0].reward_forward == judged * (1 + trace.objective.copies)
    with torch.no_grad():
        picture = 2 * trace.backbone.decode(state.z) - 1
    entered = {step: trace.tensors.get(f"s{step:02d}/k00/latents_in") for step in latents}
    entered = {
        step: trace.tensors[f"s{step:02d}/plain/latents_in"] if z is None else z
        for step, z in entered.items()
    }
    differences = {
        "latents": max(far(z, entered[step]) for step, z in latents.items()),
        "final latents": far(state.z, trace.tensors["final/latents"]),
        "final picture": far(picture, trace.tensors["final/image"]),
    }
    print("whole run:", {name: f"{value:.1e}" for name, value in differences.items()})
    assert max(differences.values()) < 5e-3
