"""Recorded runs of diffusers' StableDiffusion3Pipeline and FluxPipeline, from the texts to the pictures.

Ours run freely from the recorded start, so every difference counts; the limits leave room for another torch.
"""

from dataclasses import replace

import pytest
import torch

from align.backbones.base import Conditioning
from align.backbones.diffusers_guiders import borrowed
from align.backbones.families.flux import packed, places, unpacked
from align.backbones.guider import Guider, Weak
from align.processes.base import kernel

from .flow import Trace, far, pytest_cases


def pytest_generate_tests(metafunc):
    pytest_cases(metafunc, "sd3_", "flux_", "schnell_")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("flow")


@pytest.fixture(scope="module")
def trace(request, golden, folder):
    return Trace(golden, request.param, folder)


def texts(trace, which=""):
    """What the backbone reads of each prompt: states and pooled; CLIP's text can be another than T5's."""
    family, negative = trace.backbone.family, "negative_" if which else ""
    read = [family.read(one) for one in trace.prompts(f"{negative}prompt")]
    if f"{negative}prompt_2" in trace.settings:
        second = [family.read(one) for one in trace.prompts(f"{negative}prompt_2")]
        read = [one._replace(states=two.states) for one, two in zip(read, second, strict=True)]
    return read


def test_texts_are_read_as_the_pipeline_reads_them(trace):
    for which in ("", "negative_"):
        if f"cond/{which}pooled" not in trace.tensors:
            continue
        with torch.no_grad():
            read = texts(trace, which)
        recorded = trace.cond(which)
        for one, states, pooled in zip(read, recorded.states, recorded.pooled, strict=True):
            assert far(one.states, states) < 1e-5
            assert far(one.pooled, pooled) < 1e-5


def test_levels_are_the_recorded_ones(trace):
    steps = trace.process.steps
    levels = [*(step.s for step in steps), steps[-1].s_next]
    torch.testing.assert_close(levels, trace.facts["sigmas"], rtol=0, atol=1e-6)
    torch.testing.assert_close([step.time for step in steps], trace.facts["timesteps"], rtol=1e-6, atol=0)
    assert trace.backbone.scheduler_config["mu"] == pytest.approx(trace.facts["mu"], abs=1e-6)


def latents(trace, name):
    """Recorded latents, unpacked where the pipeline packs them."""
    found = trace.tensors[name]
    return found if found.ndim == 4 else unpacked(found, trace.settings["height"] // 16)


def conditioning(trace):
    read = texts(trace)
    others = texts(trace, "negative_") if "cond/negative_pooled" in trace.tensors else read
    kinds = [torch.stack(kind) for one in (read, others) for kind in list(zip(*one, strict=True))[:2]]
    return Conditioning(kinds[0], kinds[2], kinds[1], kinds[3])


def guider(trace):
    """The guidance of a pipeline's call."""
    call, number = trace.settings, len(trace.process.steps)
    scale = call["guidance_scale"]
    pair = scale if trace.kind == "sd3" else call.get("true_cfg_scale", 1.0)
    made = Guider(max(pair, 1.0), embedded=scale)
    if (layers := call.get("skip_guidance_layers")) is None:
        return made
    options = {
        "start": 0.0,
        "stop": 1.0,
        "weak_scale": call["skip_layer_guidance_scale"],
        "weak_start": call["skip_layer_guidance_start"],
        "weak_stop": call["skip_layer_guidance_stop"],
    }
    combine = borrowed("slg", pair, number, options)
    ends = (number * call[f"skip_layer_guidance_{end}"] for end in ("start", "stop"))
    steps = [k for begins, stops in [ends] for k in range(number) if begins < k < stops]
    weak = Weak("skip", None, tuple(layers))
    return replace(made, combine=combine, weak=weak, weak_steps=range(steps[0], steps[-1] + 1))


@torch.no_grad()
def test_the_whole_run_is_the_recorded_one(trace):
    backbone = trace.backbone
    given, guides = conditioning(trace), guider(trace)
    z = latents(trace, "s00/latents_in")
    worst = {"velocity": 0.0, "latents": 0.0}
    for step in trace.process.steps:
        found = backbone.predict(z, step, given, guides, correction=False)
        velocity = found.eps - found.x0
        name = f"s{step.index:02d}/velocity"
        if name in trace.tensors:
            worst["velocity"] = max(worst["velocity"], far(velocity, latents(trace, name)))
        z = kernel(found.x0, found.eps, step).mean
        last = step.index + 1 == len(trace.process.steps)
        recorded = "final/latents" if last else f"s{step.index + 1:02d}/latents_in"
        worst["latents"] = max(worst["latents"], far(z, latents(trace, recorded)))
    decoded = 2 * backbone.decode(z) - 1
    worst["decoded"] = far(decoded, trace.tensors["final/decoded"])
    assert max(worst.values()) < 1e-4, worst


def test_packing_is_the_recorded_one(trace):
    if "ids/image" not in trace.tensors:
        pytest.skip("nothing is packed")
    z = latents(trace, "s00/latents_in")
    assert torch.equal(packed(z), trace.tensors["s00/latents_in"])
    assert torch.equal(places(z.shape[2] // 2, z.shape[3] // 2, z.device), trace.tensors["ids/image"])
