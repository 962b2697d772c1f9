"""diffusers' switches on a CPU: the same pictures and gradients within what 8 bit leave, and no trace on other networks."""

import json

import pytest
import torch
from diffusers.models.attention_dispatch import _AttentionBackendRegistry
from hub_box import write_sd
from tiny_transformers import write_flux, write_sd3

from align.backbones.base import Conditioning
from align.backbones.guider import Guider
from align.backbones.recipe import Recipe
from align.backbones.registry import load
from align.errors import WrongWeights
from align.processes.ddim import ddim
from align.processes.flow import flow

CPU = torch.device("cpu")
KINDS = {"sd3": (write_sd3, "pair"), "flux": (write_flux, "embedded"), "sd": (write_sd, "pair")}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {name: tmp_path_factory.mktemp(name) for name in KINDS}
    for name, (write, _) in KINDS.items():
        write(made[name], 1)
    return made


def made(folders, name, checkpointing=False, **switches):
    recipe = Recipe((str(folders[name]),), name, guidance=KINDS[name][1], **switches)
    return load(recipe, CPU, 64, 64, checkpointing=checkpointing)


def evaluated(backbone):
    """A prediction's clean latents, and the gradient of a loss of them and of the maps."""
    process = flow if backbone.scheduler_config["prediction_type"] == "velocity" else ddim
    step = process(backbone.scheduler_config, 10, 1.0).steps[4]
    z = torch.randn(2, *backbone.latent_shape(), generator=torch.Generator().manual_seed(1)).requires_grad_()
    conditioning = Conditioning.of([backbone.encode(prompt, "") for prompt in ("a red cat", "dogs")])
    found = backbone.predict(z, step, conditioning, Guider(3.0), "prompt")
    loss = found.x0.square().sum() + 100 * found.attention[..., 1].square().sum()
    return found.x0.detach(), torch.autograd.grad(loss, z)[0]


def off(ours, whole):
    return float((ours - whole).norm() / whole.norm())


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_weights_in_8_bit_leave_pictures_and_gradients_nearly_the_same(folders, name, checkpointing):
    x0, gradient = evaluated(made(folders, name))
    backbone = made(folders, name, checkpointing, storage="float8")
    resting = [one for one in backbone.network.parameters() if one.dtype == torch.float8_e4m3fn]
    assert sum(map(torch.numel, resting)) > 0.3 * sum(map(torch.numel, backbone.network.parameters()))
    found, back = evaluated(backbone)
    assert 0 < off(found, x0) < 0.05
    assert 0 < off(back, gradient) < 0.1
    again, back_again = evaluated(backbone)
    assert torch.equal(found, again)
    assert torch.equal(back, back_again)


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_a_backend_of_attention_is_this_networks_alone(folders, name):
    before = _AttentionBackendRegistry.get_active_backend()[0]
    x0, gradient = evaluated(made(folders, name))
    backbone = made(folders, name, attention="_native_math")
    found, back = evaluated(backbone)
    assert off(found, x0) < 1e-5
    assert off(back, gradient) < 1e-4
    assert _AttentionBackendRegistry.get_active_backend()[0] == before
    taken = {
        layer.processor.recorder.fused._attention_backend.value for layer in backbone.family.layers()[:1]
    }
    assert taken == {"_native_math"}


def test_quantised_weights_of_an_absent_package_are_told(folders, tmp_path):
    folder = tmp_path / "sd3"
    write_sd3(folder, 1)
    path = folder / "transformer/config.json"
    stated = json.loads(path.read_text()) | {
        "quantization_config": {"quant_method": "gguf", "compute_dtype": "bfloat16"}
    }
    path.write_text(json.dumps(stated))
    with pytest.raises(WrongWeights, match="gguf"):
        load(Recipe((str(folder),), "sd3"), CPU, 64, 64)
