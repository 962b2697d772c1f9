"""diffusers' switches on a CPU: the same pictures and gradients within what 8 bit leave, and no trace on other networks."""

import json

import pytest
import torch
from diffusers.models.attention_dispatch import _AttentionBackendRegistry
from hub_box import write_sd
from tiny_transformers import write_flux, write_sd3

from align.__main__ import main
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
def test_weights_in_8_bit_are_those_rounded_once_and_a_gradient_passes(folders, name, checkpointing):
    backbone, rounded = made(folders, name, checkpointing, storage="float8"), made(folders, name)
    resting = {key for key, one in backbone.network.named_parameters() if one.dtype == torch.float8_e4m3fn}
    weights = dict(rounded.network.named_parameters())
    assert sum(weights[key].numel() for key in resting) > 0.3 * sum(map(torch.numel, weights.values()))
    with torch.no_grad():
        for key in resting:
            weights[key].copy_(weights[key].to(torch.float8_e4m3fn))
    for ours, exact in zip(evaluated(backbone), evaluated(rounded), strict=True):
        assert off(ours, exact) < 1e-4
    assert off(evaluated(backbone)[0], evaluated(made(folders, name))[0]) > 1e-4


def test_a_backend_of_attention_is_this_networks_alone(folders):
    before = _AttentionBackendRegistry.get_active_backend()[0]
    backbone = made(folders, "flux", attention="_native_math")
    for ours, usual in zip(evaluated(backbone), evaluated(made(folders, "flux")), strict=True):
        assert off(ours, usual) < 1e-4
    assert _AttentionBackendRegistry.get_active_backend()[0] == before
    taken = {
        layer.processor.recorder.fused._attention_backend.value for layer in backbone.family.layers()[:2]
    }
    assert taken == {"_native_math"}


def test_attention_that_asks_torch_itself_takes_no_backend(folders):
    with pytest.raises(WrongWeights, match=r"asks torch itself: give backbone\.attention=null"):
        made(folders, "sd3", attention="native")


def test_quantised_weights_that_cannot_be_read_here_are_told_before_any_work(tmp_path, capsys):
    folder = tmp_path / "flux"
    write_flux(folder, 1)
    path = folder / "transformer/config.json"
    quantised = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": quantised}))
    options = [
        "prompts=text",
        "prompts.text=[a cat]",
        "metrics=none",
        "method=none",
        f"run.folder={tmp_path / 'run'}",
    ]
    small = ["backbone.height=64", "backbone.width=64", "run.device=cpu"]
    assert main(["backbone=flux_dev", f"backbone.weights={folder}", *small, *options]) == 3
    error = capsys.readouterr().err
    assert error.startswith(
        "align: the network's weights are quantised (quantization_config of bitsandbytes): "
    )
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()
