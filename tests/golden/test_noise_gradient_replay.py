"""Recorded runs of the released DNO and ReNO programs through our own strategy, fed with their noise and orders.

A slim one comes with the tests; ``--golden DIR`` replays every trace of a folder too.  Each iterate is compared from its recorded noise, each update from its recorded gradient, and both as they
run freely.
"""

import pytest
import torch
from safetensors.torch import load_file

from align.processes.ddim import ddim
from align.sampling.noise import Given
from align.strategies import hybrid
from align.strategies.base import Trial
from align.strategies.moves import clipped
from align.strategies.penalties import gaussian_penalty, norm_penalty

from .noise_gradient_replay import DNO, Recorded, ReNO, trace_of, traces, trials_of
from .replay import SLIM

LATENTS, FREE, GRADIENT, NOISE, PENALTY, PICTURE = 2e-4, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5
"""FREE is of latents and noise as it runs freely, once Adam has divided gradients by their size."""
ROUGH = 2e-2
"""Likewise of rewards with the hybrid gradient: differences of losses of pictures a hundredth apart are a hundred times as rough, of some
entries the gradient is rounding's own, and Adam moves these as far as all others."""
CONTRASTIVE, OTHER, JPEG, HALVED = 1e-3, 1e-5, 0.03, 4e-3
"""Of rewards by kind: one of size 64, others, kilobytes, and a sum in float16."""


def pytest_generate_tests(metafunc):
    folders = [SLIM, metafunc.config.getoption("--golden")]
    found = [
        (folder, name)
        for folder in folders
        if folder
        for kind in ("dno", "reno")
        for name in traces(folder, kind)
    ]
    wanted = {
        "trace": lambda name: name != "dno_regulariser" and "imageselect" not in name,
        "selected": lambda name: "imageselect" in name,
        "case": lambda name: name == "dno_regulariser",
    }
    for fixture, belongs in wanted.items():
        if fixture in metafunc.fixturenames:
            cases = [one for one in found if belongs(one[1])]
            ids = [f"{'slim' if folder is SLIM else 'given'}-{name}" for folder, name in cases]
            metafunc.parametrize(fixture, cases, ids=ids, indirect=True, scope="module")


@pytest.fixture(scope="module")
def trace(request):
    return trace_of(*request.param)


@pytest.fixture(scope="module")
def selected(request):
    return trace_of(*request.param)


@pytest.fixture(scope="module")
def case(request):
    folder, name = request.param
    return load_file(folder / f"noise/{name}.safetensors")


@pytest.fixture(autouse=True)
def _of_several_workers(request, monkeypatch):
    """Their mean is normalised: as the sum, with as many times the small number."""
    if "trace" in request.fixturenames:
        trace = request.getfixturevalue("trace")
        if isinstance(trace, DNO) and trace.hybrid:
            monkeypatch.setattr(hybrid, "SMALL", trace.workers * hybrid.SMALL)


def value_limit(trace):
    if isinstance(trace, DNO):
        return {"pick": CONTRASTIVE, "jpeg": JPEG}.get(trace.facts["reward"], OTHER)
    if trace.halved:
        return HALVED
    names = {"PickScore": CONTRASTIVE, "CLIP": CONTRASTIVE}
    return sum(weight * names.get(name, OTHER) for name, weight in trace.options["losses"]) + 1e-6


def recorded_value(trace, iteration):
    """The reward of an iterate."""
    if isinstance(trace, DNO):
        return trace.facts["rewards"][iteration]
    losses = trace.tensors["losses"][iteration].tolist()
    return -sum(weight * loss for (_, weight), loss in zip(trace.options["losses"], losses, strict=True))


def check_iterate(trace, iteration, found, gradient, latents=LATENTS):
    tensors, key = trace.tensors, f"it{iteration}."
    steps = len(trace.process.steps)
    if isinstance(trace, ReNO) and f"{key}x{steps - 1}" in tensors:
        assert (found.latents - tensors[f"{key}x{steps - 1}"]).abs().max() <= latents
    if key + "latent" in tensors:
        assert (found.latents[0] - tensors[key + "latent"]).abs().max() <= latents
    assert abs(float(found.values[0]) - recorded_value(trace, iteration)) <= value_limit(trace)
    if key + "image" in tensors:
        image = tensors[key + "image"]
        if image.dtype == torch.uint8:
            levels = (255 * trace.shown(found.pictures[0]) + 0.5).floor().permute(1, 2, 0)
            assert (levels - image).abs().max() <= 1
        else:
            assert (trace.shown(found.pictures) - image).abs().max() <= PICTURE
    if gradient is not None and key + "grad" in tensors:
        recorded, norm = tensors[key + "grad"], float(tensors[key + "grad_norm"])
        assert (gradient - recorded).abs().max() / norm <= GRADIENT
        assert abs(float(gradient.norm()) / norm - 1) <= GRADIENT


def test_each_iterate_from_its_recorded_noise(trace):
    strategy, iterates = trace.strategy(), trace.iterates()
    trials = trials_of(trace, strategy)
    for iteration in iterates:
        leaf = trace.of(iteration, "z").clone().requires_grad_()
        gradients, finite = strategy.walk_back(trials, [Recorded(trace)], [leaf], iteration)
        assert finite == [True]
        check_iterate(trace, iteration, strategy.found[-1], gradients[0])


def test_the_coefficients_are_those_of_ddim(trace):
    if not isinstance(trace, DNO):
        pytest.skip("has none")
    steps = ddim(trace.backbone.scheduler_config, trace.steps, trace.options["eta"]).steps
    *others, last = trace.process.steps
    assert last.std == 0
    for ours, step in zip(steps[:-1], others, strict=True):
        assert ours.std == pytest.approx(step.std, abs=1e-5)
    for step, of_z, of_eps in zip(steps, trace.process.of_z, trace.process.of_eps, strict=True):
        std = step.std if step is not steps[-1] else 0.0
        kept = max(step.s_next**2 - std**2, 0) ** 0.5
        assert step.a_next / step.a == pytest.approx(of_z, rel=1e-5)
        assert kept - step.a_next * step.s / step.a == pytest.approx(of_eps, abs=1e-5)


def test_each_update_from_its_recorded_gradient(trace):
    strategy = trace.strategy()
    leaf = trace.of(0, "z").clone().requires_grad_()
    mover = strategy.mover(leaf)
    for iteration in trace.iterates():
        after = trace.tensors.get(f"it{iteration + 1}.z", trace.tensors.get("z_final"))
        if f"it{iteration}.grad" not in trace.tensors or after is None:
            break
        with torch.no_grad():
            leaf.copy_(trace.of(iteration, "z"))
        leaf.grad = clipped(trace.of(iteration, "grad"), strategy.options.clip)
        mover.step()
        assert (leaf - after).abs().max() <= NOISE


def test_the_penalty_of_each_iterate(trace):
    if not isinstance(trace, DNO) or not trace.options["gamma"]:
        pytest.skip("has none")
    strategy = trace.strategy()
    for iteration in trace.iterates():
        z = trace.of(iteration, "z")
        read = torch.stack([z[k] for k, slot in enumerate(strategy.slots) if slot in strategy.penalised])
        orders = trace.orders(iteration, read.numel())
        found = gaussian_penalty(read.flatten(), orders, 4**strategy.options.subsample)
        assert abs(float(found) - float(trace.of(iteration, "reg"))) <= PENALTY


def test_as_it_runs_freely(trace):
    strategy, number = trace.strategy(), len(trace.iterates())
    (outcome,) = strategy.sample([trace.request])
    assert len(strategy.found) == number
    for iteration, found in enumerate(strategy.found):
        before, gradient = strategy.seen[iteration] if iteration < len(strategy.seen) else (None, None)
        if iteration and isinstance(trace, DNO) and trace.hybrid:
            assert abs(float(found.values[0]) - recorded_value(trace, iteration)) <= max(
                ROUGH, value_limit(trace)
            )
            continue
        if before is not None:
            assert (before - trace.of(iteration, "z")).abs().max() <= FREE
        check_iterate(trace, iteration, found, gradient, FREE)
    if isinstance(trace, ReNO):
        best = max(range(number), key=lambda iteration: recorded_value(trace, iteration))
        assert outcome.info["iterate"] == best
        assert abs(outcome.info["value"] + trace.facts["best_rewards"]["total"]) <= value_limit(trace) + 1e-6
        levels = (255 * outcome.picture).round().permute(1, 2, 0)
        assert (levels - trace.tensors["best_image"]).abs().max() <= 1
    else:
        assert outcome.info["iterate"] == number - 1


def test_the_slope_of_neighbours(trace):
    if not isinstance(trace, DNO) or not trace.hybrid:
        pytest.skip("has none")
    backbone, q = trace.backbone, trace.options["batch_per_device"]
    whole = torch.zeros(3, 128, 128)
    for worker in range(1, trace.workers + 1):
        losses = trace.of(0, f"worker{worker}.losses")
        with torch.no_grad():
            pictures = backbone.decode(trace.of(0, f"worker{worker}.samples"))
        whole += hybrid.direction(pictures[None, :q], -losses[None, :q], pictures[q:], -losses[q:])[0]
    recorded = trace.of(0, "h_raw")
    assert (whole / trace.workers - recorded).abs().max() <= 1e-4 * recorded.norm()


def test_the_penalty_alone(case):
    for name in sorted({key.split(".")[0] for key in case}):
        entries = case[f"{name}.v"].clone().requires_grad_()
        width = 16 if name == "subsample2" else 4
        value = gaussian_penalty(entries, case[f"{name}.perms"].long(), width)
        (gradient,) = torch.autograd.grad(value, entries)
        assert abs(float(value.detach()) - float(case[f"{name}.value"])) <= PENALTY * max(
            1.0, float(value.detach()) / 4
        ), name
        recorded = case[f"{name}.grad"]
        assert (gradient - recorded).abs().max() / recorded.norm() <= GRADIENT, name


def test_the_best_of_fresh_noises(selected):
    """Each is a candidate; none is optimised."""
    trials = trials_of(selected, selected.strategy())
    for iteration in selected.iterates():
        noise = Given({("initial", 0): selected.of(iteration, "z")[0]}, Recorded(selected))
        found = trials([Trial(0, selected.request, noise)])
        assert abs(float(found.values[0]) - recorded_value(selected, iteration)) <= value_limit(selected)
        trials.best[0].offer(float(found.values[0]), found.pictures[0], found.latents[0], iterate=iteration)
    found = trials.best[0]
    assert abs(found.value + selected.facts["best_rewards"]["total"]) <= value_limit(selected) + 1e-6
    levels = (255 * found.picture).round().permute(1, 2, 0)
    assert (levels - selected.tensors["best_image"]).abs().max() <= 1


def test_the_norms_penalty_pulls_to_the_likeliest_norm():
    z = torch.randn(50, generator=torch.Generator().manual_seed(0))
    for norm in (5.0, 7.0, 9.0):
        own = (z * norm / z.norm()).requires_grad_()
        (slope,) = torch.autograd.grad(norm_penalty(own), own)
        assert torch.allclose(slope, (norm - 49 / norm) * own.detach() / norm, atol=1e-5)
