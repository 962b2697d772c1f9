"""Low-rank updates in every naming that diffusers has used, merged into a network."""

import json

import pytest
import torch
from hub_box import sd_unet, write_sd
from safetensors.torch import save_file

from align.backbones.lora import merge, update
from align.backbones.registry import Recipe, load
from align.errors import WrongWeights

CPU = torch.device("cpu")
ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"
RANK = 2


@pytest.fixture(scope="module")
def layers():
    return dict(sd_unet(1).named_modules())


def factors(weight, seed=0):
    generator = torch.Generator().manual_seed(seed)
    down = torch.randn(RANK, *weight.shape[1:], generator=generator)
    up = torch.randn(len(weight), RANK, *[1] * (weight.ndim - 2), generator=generator)
    return down, up


NAMES = {
    "peft": (f"unet.{ATTENTION}.to_q.lora_A.weight", f"unet.{ATTENTION}.to_q.lora_B.weight", "to_q"),
    "plain": (f"unet.{ATTENTION}.to_q.lora.down.weight", f"unet.{ATTENTION}.to_q.lora.up.weight", "to_q"),
    "processor": (
        f"unet.{ATTENTION}.processor.to_q_lora.down.weight",
        f"unet.{ATTENTION}.processor.to_q_lora.up.weight",
        "to_q",
    ),
    "processor without prefix, output": (
        f"{ATTENTION}.processor.to_out_lora.down.weight",
        f"{ATTENTION}.processor.to_out_lora.up.weight",
        "to_out.0",
    ),
}


@pytest.mark.parametrize("names", NAMES)
def test_every_naming_gives_the_same_update(names):
    down_name, up_name, layer = NAMES[names]
    unet = sd_unet(1)
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    weight = f"{ATTENTION}.{layer}.weight"
    down, up = factors(before[weight])
    merge(unet, {down_name: down, up_name: up})
    after = unet.state_dict()
    torch.testing.assert_close(after[weight], before[weight] + up @ down)
    assert [name for name in after if not torch.equal(after[name], before[name])] == [weight]


@pytest.mark.parametrize(
    ("more", "metadata", "scale"),
    [
        ({f"unet.{ATTENTION}.to_q.alpha": torch.tensor(6.0)}, {}, 3.0),
        ({}, {"lora_adapter_metadata": json.dumps({"unet.r": 4, "unet.lora_alpha": 1})}, 0.25),
        ({}, {"format": "pt"}, 1.0),
    ],
)
def test_the_scale_is_alpha_over_rank(more, metadata, scale):
    unet = sd_unet(1)
    weight = unet.get_submodule(f"{ATTENTION}.to_q").weight
    before = weight.detach().clone()
    down, up = factors(before)
    down_name, up_name, _ = NAMES["peft"]
    merge(unet, {down_name: down, up_name: up, **more}, metadata)
    torch.testing.assert_close(weight.detach(), before + scale * up @ down)


def test_an_update_is_the_layers_one_after_the_other(layers):
    for name in ("conv_in", f"{ATTENTION}.to_q"):
        layer = layers[name]
        down, up = factors(layer.weight)
        x = torch.randn(2, *([4, 5, 5] if layer.weight.ndim == 4 else [8]))
        if layer.weight.ndim == 4:
            two = torch.conv2d(torch.conv2d(x, down, padding=1), up)
            one = torch.conv2d(x, update(layer.weight, down, up), padding=1)
        else:
            two, one = x @ down.T @ up.T, x @ update(layer.weight, down, up).T
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({}, "holds no low-rank updates"),
        ({"lora_te_text_model.lora_down.weight": (2, 8)}, "no name that diffusers gives"),
        (
            {"unet.nothing.lora_A.weight": (2, 8), "unet.nothing.lora_B.weight": (8, 2)},
            "no layer of the UNet",
        ),
        ({f"{ATTENTION}.to_q.lora_A.weight": (2, 8)}, "one factor of two"),
        (
            {f"{ATTENTION}.to_q.lora_A.weight": (2, 9), f"{ATTENTION}.to_q.lora_B.weight": (8, 2)},
            "does not fit",
        ),
    ],
)
def test_what_is_no_lora_of_this_network_is_refused(state, words):
    with pytest.raises(ValueError, match=words):
        merge(sd_unet(1), {name: torch.zeros(shape) for name, shape in state.items()})


def test_a_lora_is_merged_into_the_loaded_network(tmp_path):
    write_sd(tmp_path / "sd", 1)
    file = tmp_path / "mine.safetensors"
    down_name, up_name, _ = NAMES["processor"]
    plain = load(Recipe((str(tmp_path / "sd"),)), CPU, 32, 32)
    before = plain.unet.get_submodule(f"{ATTENTION}.to_q").weight
    down, up = factors(before)
    save_file({down_name: down, up_name: up}, file)
    recipe = Recipe((str(tmp_path / "sd"),), lora=str(file))
    after = load(recipe, CPU, 32, 32).unet.get_submodule(f"{ATTENTION}.to_q").weight
    torch.testing.assert_close(after, before + up @ down)
    assert not after.requires_grad
    save_file({"something": down}, file)
    with pytest.raises(WrongWeights, match=r"backbone.lora=\S+mine.safetensors cannot be loaded: [^\n]+$"):
        load(recipe, CPU, 32, 32)
