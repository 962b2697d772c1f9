"""Every network call of a recorded run of the released SDXL script (tiny random models), fed with its latents.

Needs ``--golden DIR``: a folder with ``dymo/trace_sdxl_full.*`` and ``tiny/tiny-sdxl``.
"""

import json
from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file

from align.backbones.base import Conditioning
from align.backbones.guider import Guider
from align.backbones.modules import Modules
from align.backbones.unet import UNetBackbone
from align.processes.ddim import ddim

CPU = torch.device("cpu")
LIMIT = 1e-4


def far(ours, recorded):
    """Largest difference over the largest magnitude of what was recorded."""
    return float((ours - recorded).abs().max() / recorded.abs().max())


@pytest.fixture(scope="module")
def replay(golden):
    if golden is None:
        pytest.skip("needs --golden DIR")
    tensors = load_file(golden / "dymo/trace_sdxl_full.safetensors")
    facts = json.loads((golden / "dymo/trace_sdxl_full.json").read_text())
    folder = golden / "tiny/tiny-sdxl"
    modules = Modules(
        network=UNet2DConditionModel.from_pretrained(folder / "unet"),
        vae=AutoencoderKL.from_pretrained(folder / "vae"),
        text=(),
        zero_empty=True,
        scheduler_config=dict(DDIMScheduler.from_pretrained(folder / "scheduler").config),
        device=CPU,
    )
    backbone = UNetBackbone(modules, 128, 128, attention_stride=2)
    with torch.no_grad():
        for name, parameter in backbone.unet.named_parameters():
            if name.endswith(("attn2.to_q.weight", "attn2.to_k.weight")):
                parameter *= facts["attn_gain"]
    (negative, prompt), (pooled_negative, pooled) = (
        tensors["init/prompt_embeds"],
        tensors["init/add_text_embeds"],
    )
    conditioning = Conditioning(
        prompt[None], negative[None], pooled[None], pooled_negative[None], tensors["init/add_time_ids"][:1]
    )
    return SimpleNamespace(
        tensors=tensors,
        facts=facts,
        backbone=backbone,
        conditioning=conditioning,
        process=ddim(backbone.scheduler_config, 12, 1.0),
    )


def test_sizes_are_those_that_the_backbone_makes(replay):
    assert torch.equal(replay.backbone.text.size.expand(2, -1), replay.tensors["init/add_time_ids"])
    assert not replay.tensors["init/prompt_embeds"][0].any()
    assert not replay.tensors["init/add_text_embeds"][0].any()


@torch.no_grad()
def test_every_call(replay):
    calls = [(one["prefix"], one["step"]) for one in replay.facts["evaluations"]]
    calls += [
        (f"s{step:02d}/{which}/", step)
        for step in range(12)
        for which in ("plain", "twin")
        if f"s{step:02d}/{which}/latents_in" in replay.tensors
    ]
    worst = {}
    for prefix, number in calls:
        recorded = {
            key.removeprefix(prefix): value for key, value in replay.tensors.items() if key.startswith(prefix)
        }
        step = replay.process.steps[number]
        assert step.time == replay.facts["steps"][number]["t"]
        found = replay.backbone.predict(
            recorded["latents_in"], step, replay.conditioning, Guider(5.0), attention="both"
        )
        other, own = recorded["eps_uncond_text"]
        kernel = replay.process.kernel(found.x0, found.eps, step)
        differences = {
            "eps": far(found.eps, recorded["eps"]),
            "correction": far(found.correction, (own - other)[None]),
            "x0": far(found.x0, recorded["pred_x0"]),
            "next": far(kernel.sample(recorded["variance_noise"]), recorded["ddim_prev"]),
        }
        if "attn" in recorded:
            differences["attention"] = far(found.attention[0], recorded["attn"])
        if "decoded_x0" in recorded:
            picture = replay.backbone.decode(recorded["pred_x0"])
            differences["picture"] = far(2 * picture - 1, recorded["decoded_x0"])
        worst = {key: max(worst.get(key, 0.0), value) for key, value in {**worst, **differences}.items()}
    print(f"{len(calls)} calls:", {name: f"{value:.1e}" for name, value in worst.items()})
    assert set(worst) == {"eps", "correction", "x0", "next", "attention", "picture"}
    assert {name: value for name, value in worst.items() if not value <= LIMIT} == {}


@torch.no_grad()
def test_the_empty_half_of_the_maps_is_uniform(replay):
    z = replay.tensors["init/latents"]
    maps = replay.backbone.predict(
        z, replay.process.steps[0], replay.conditioning, Guider(5.0), "prompt"
    ).attention
    both = replay.backbone.predict(
        z, replay.process.steps[0], replay.conditioning, Guider(5.0), "both"
    ).attention
    torch.testing.assert_close(2 * both - maps, torch.full_like(maps, 1 / 77))


@torch.no_grad()
def test_the_final_picture(replay):
    picture = replay.backbone.decode(replay.tensors["final/latents"])
    assert far(2 * picture - 1, replay.tensors["final/image"]) < LIMIT
