"""Every step of a recorded run of the released DAS code on a tiny latent consistency model, fed with its latents.

The run is guided by released rules; here count network, consistency function, kernel and gradient, which no rule changes.
"""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from align.backbones.base import Conditioning, guidance_embedding
from align.backbones.guider import Guider
from align.processes.lcm import lcm

from .tiny_lcm import tiny_lcm

DATA = Path(__file__).parent / "data/das"
STEPS = range(8)


@pytest.fixture(scope="module")
def recorded():
    facts = json.loads((DATA / "lcm_calls.json").read_text())
    tensors = load_file(DATA / "lcm_calls.safetensors")
    backbone = tiny_lcm()
    states = tensors["cond.encoder_hidden_states"].expand(2, -1, -1)
    return SimpleNamespace(
        facts=facts,
        tensors=tensors,
        backbone=backbone,
        conditioning=Conditioning(states, torch.full_like(states, torch.nan)),
        process=lcm(backbone.scheduler_config, facts["steps"]),
    )


def at(recorded, index):
    """The step of the process, and what was recorded at it by name."""
    prefix = f"step{index:02d}."
    own = {
        key.removeprefix(prefix): value for key, value in recorded.tensors.items() if key.startswith(prefix)
    }
    return recorded.process.steps[index], own


def predict(recorded, z, step):
    return recorded.backbone.predict(
        z, step, recorded.conditioning, Guider(embedded=recorded.facts["guidance_scale"])
    )


def reward(recorded, x0):
    picture = recorded.backbone.decode(x0).clamp(0, 1)
    return picture[:, 0].mean(dim=(1, 2)) - picture[:, 2].mean(dim=(1, 2))


def test_the_scale_is_embedded_as_recorded(recorded):
    (width,) = recorded.tensors["cond.timestep_cond"].shape[1:]
    found = guidance_embedding(recorded.facts["guidance_scale"], width)
    torch.testing.assert_close(found, recorded.tensors["cond.timestep_cond"][0], rtol=0, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("index", STEPS)
def test_a_step_is_the_recorded_one(recorded, index):
    step, own = at(recorded, index)
    assert step.time == int(own["t"])
    found = predict(recorded, own["latents"], step)
    assert (found.eps - own["noise_pred"]).abs().max() < 5e-5
    assert (found.x0 - own["pred_x0"]).abs().max() < 1e-4
    assert (reward(recorded, found.x0) - own["rewards"]).abs().max() < 2e-6
    kernel = recorded.process.kernel(found.x0, found.eps, step)
    assert (kernel.std == 0) == (index == STEPS[-1])
    z_next = kernel.sample(own["noise"]) if "noise" in own else kernel.mean
    assert (z_next - own["prev_sample"]).abs().max() < 1e-4


@pytest.mark.parametrize("index", [0, 4, 7])
def test_the_rewards_gradient_is_the_recorded_one(recorded, index):
    step, own = at(recorded, index)
    z = own["latents"].clone().requires_grad_()
    value = reward(recorded, predict(recorded, z, step).x0) / recorded.facts["kl_coeff"]
    (gradient,) = torch.autograd.grad(value.sum(), z)
    assert (gradient - own["reward_grad"]).abs().max() < 1e-4 * own["reward_grad"].abs().max()
