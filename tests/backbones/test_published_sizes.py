"""The smoke test's configurations are the published ones: parameters counted without memory for them."""

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from align.backbones.attention import cross_attention_layers
from scripts.smoke_full import PARAMETERS, UNETS, VAE


@pytest.mark.parametrize(("name", "layers"), [("sd15", 5), ("sdxl", 60)])
def test_the_network_has_the_published_size_and_dymos_layers(name, layers):
    with torch.device("meta"):
        unet = UNet2DConditionModel(**UNETS[name])
    assert sum(value.numel() for value in unet.parameters()) / 1e6 == pytest.approx(PARAMETERS[name], abs=0.1)
    # Those whose maps are 16x16 for Stable Diffusion at 512x512 and 32x32 for XL at 1024x1024.
    assert len(cross_attention_layers(unet)[4]) == layers


def test_the_autoencoder_has_the_published_size():
    with torch.device("meta"):
        vae = AutoencoderKL(**VAE)
    assert sum(value.numel() for value in vae.parameters()) / 1e6 == pytest.approx(PARAMETERS["vae"], abs=0.1)
