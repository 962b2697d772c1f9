"""A distilled decoder is diffusers' own, read from its file strictly."""

import json

import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import load_file, save_file

from align.backbones.small_decoder import load_small_decoder
from align.errors import MissingWeights, WrongWeights

CPU, WEIGHTS, LATENTS = torch.device("cpu"), "diffusion_pytorch_model.safetensors", (4, 4, 4)


@pytest.fixture
def saved(tmp_path):
    """A tiny one with a scale and a shift, and its folder."""
    torch.manual_seed(0)
    model = AutoencoderTiny(
        encoder_block_out_channels=(4, 4),
        decoder_block_out_channels=(4, 4),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
        scaling_factor=0.5,
        shift_factor=0.25,
    ).eval()
    model.save_pretrained(tmp_path)
    return model, tmp_path


def load(folder, latents=LATENTS):
    return load_small_decoder(folder, WEIGHTS, latents, CPU, torch.float32)


def test_it_decodes_as_diffusers_does(saved):
    model, folder = saved
    z = torch.randn(3, *LATENTS)
    with torch.no_grad():
        expected = (model.decode(z / 0.5 + 0.25).sample + 1) / 2
    pictures = load(folder)(z)
    assert pictures.shape == (3, 3, 8, 8)
    torch.testing.assert_close(pictures, expected)


def test_the_encoder_need_not_be_there(saved):
    _, folder = saved
    z, whole = torch.randn(1, *LATENTS), load(folder)
    tensors = load_file(folder / WEIGHTS)
    save_file({k: v for k, v in tensors.items() if k.startswith("decoder.")}, folder / WEIGHTS)
    assert torch.equal(load(folder)(z), whole(z))


def test_it_may_be_in_shards(saved):
    model, folder = saved
    z, whole = torch.randn(1, *LATENTS), load(folder)
    (folder / WEIGHTS).unlink()
    model.save_pretrained(folder, max_shard_size="2KB")
    index = f"{WEIGHTS}.index.json"
    assert (folder / index).is_file()
    assert torch.equal(load_small_decoder(folder, index, LATENTS, CPU, torch.float32)(z), whole(z))


def test_half_numbers_give_float_pictures(saved):
    pictures = load_small_decoder(saved[1], WEIGHTS, LATENTS, CPU, torch.bfloat16)(torch.randn(1, *LATENTS))
    assert pictures.dtype == torch.float32


def test_damage_and_strangers_are_told(saved):
    _, folder = saved
    with pytest.raises(WrongWeights, match="4 channels, and the backbone's have 8"):
        load(folder, (8, 4, 4))
    tensors = load_file(folder / WEIGHTS)
    save_file({k: v for k, v in tensors.items() if k != "decoder.layers.0.bias"}, folder / WEIGHTS)
    with pytest.raises(WrongWeights, match=r"1 tensors missing: layers\.0\.bias"):
        load(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(MissingWeights):
        load(folder)
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"_class_name": "AutoencoderKL"}))
    with pytest.raises(WrongWeights, match="AutoencoderKL, not AutoencoderTiny"):
        load(folder)
