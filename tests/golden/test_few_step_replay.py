"""The sampling chain of recorded ReNO runs (tiny random models): from the recorded start noise to their latents and pictures.

Needs ``--golden DIR``: a folder with ``noise/reno_*``, ``tiny`` and ``dymo/trace_sdxl_full.safetensors``, whose embeddings the
Stable Diffusion XL runs have.
"""

import json
from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file

from align.backbones.base import Conditioning
from align.backbones.guider import Guider
from align.backbones.modules import Modules
from align.backbones.unet import UNetBackbone
from align.processes.ddim import scheduler_of
from align.processes.few import few
from align.processes.schedule import read_schedule

CPU = torch.device("cpu")
RUNS = ["reno_sd_turbo", "reno_sdxl_turbo", "reno_sdxl_turbo_2step", "reno_hyper"]
NETWORK, LATENTS, PICTURE = 2e-5, 2e-4, 1e-5


@pytest.fixture(params=RUNS)
def replay(request, golden):
    if golden is None:
        pytest.skip("needs --golden DIR")
    tensors = load_file(golden / f"noise/{request.param}.safetensors")
    facts = json.loads((golden / f"noise/{request.param}.json").read_text())
    folder = golden / "tiny" / facts["pipeline"]
    stated = json.loads((folder / "scheduler/scheduler_config.json").read_text())
    modules = Modules(
        network=UNet2DConditionModel.from_pretrained(folder / "unet"),
        vae=AutoencoderKL.from_pretrained(folder / "vae"),
        text=(),
        zero_empty=False,
        scheduler_config=dict(scheduler_of(read_schedule(stated)).config),
        device=CPU,
    )
    backbone = UNetBackbone(modules, 128, 128, guidance="none")
    if facts["pipeline"] == "tiny-sdxl":
        embedded = load_file(golden / "dymo/trace_sdxl_full.safetensors")
        prompt, pooled = embedded["init/prompt_embeds"][1:], embedded["init/add_text_embeds"][1:]
        size = torch.tensor([[128.0, 128, 0, 0, 128, 128]])
    else:
        prompt, pooled, size = tensors["prompt_embeds"], None, None
    # A half that is never read: whatever it held would show.
    nothing = torch.full_like(prompt, torch.nan)
    conditioning = Conditioning(prompt, nothing, pooled, None if pooled is None else nothing[:, 0], size)
    times = [int(time) for time in facts["timesteps"]]
    process = few(backbone.scheduler_config, len(times), 1)
    if facts["scheduler"].startswith("LCM"):
        process = few(backbone.scheduler_config, len(times), 1, "stochastic", "unit", times)
    return SimpleNamespace(
        tensors=tensors,
        facts=facts,
        backbone=backbone,
        conditioning=conditioning,
        process=process,
        times=times,
    )


def predict(replay, z, step):
    return replay.backbone.predict(z, step, replay.conditioning, Guider())


@torch.no_grad()
def test_the_chain_is_the_recorded_one(replay):
    """Step by step as it runs freely; the recorded sample of Euler's coordinates is z / a."""
    assert [step.time for step in replay.process.steps] == replay.times
    z = replay.process.initial * replay.tensors["it0.z"]
    for step in replay.process.steps:
        found = predict(replay, z, step)
        recorded = replay.tensors[f"it0.eps{step.index}"]
        assert (found.eps - recorded).abs().max() <= NETWORK * max(1.0, float(recorded.abs().max()))
        noise = replay.tensors.get(f"noise{step.index}", torch.full_like(z, torch.nan))
        kernel = replay.process.kernel(found.x0, found.eps, step)
        z = kernel.sample(noise) if kernel.std else kernel.mean
        recorded = replay.tensors[f"it0.x{step.index}"]
        assert (z / step.a_next - recorded).abs().max() <= LATENTS * max(
            1.0, float(recorded.abs().max()) / 25
        )


@torch.no_grad()
def test_the_pictures_are_the_recorded_ones(replay):
    """Those of whatever iterations' noise they were kept."""
    kept = [key for key in replay.tensors if key.startswith("it") and key.endswith(".image")]
    best = min(range(len(replay.tensors["losses"])), key=lambda k: _total(replay, k))
    for name, recorded in [
        *((key.split(".")[0], replay.tensors[key]) for key in kept),
        (f"it{best}", replay.tensors["best_image"].permute(2, 0, 1)[None] / 255),
    ]:
        z = replay.process.initial * replay.tensors[f"{name}.z"]
        for step in replay.process.steps:
            found = predict(replay, z, step)
            kernel = replay.process.kernel(found.x0, found.eps, step)
            z = kernel.sample(replay.tensors[f"noise{step.index}"]) if kernel.std else kernel.mean
        picture = replay.backbone.decode(z).clamp(0, 1)
        limit = PICTURE if name != f"it{best}" or recorded.dtype != torch.float32 else 1 / 255 + 1e-3
        assert (picture - recorded).abs().max() <= limit, name


def _total(replay, iteration):
    weights = [weight for _, weight in replay.facts["options"]["losses"]]
    return sum(
        weight * float(loss)
        for weight, loss in zip(weights, replay.tensors["losses"][iteration], strict=True)
    )
