"""The tiny latent consistency model of the recordings: tiny-sd's network with an embedding of the guidance scale."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, LCMScheduler, UNet2DConditionModel
from safetensors.torch import load_file

from align.backbones.modules import Modules
from align.backbones.unet import UNetBackbone

TINY = Path(__file__).parent / "data/tiny"


def tiny_lcm(side=128):
    """The model as a backbone for pictures of ``side`` pixels; it reads no prompts, only embeddings."""
    base, own = TINY / "tiny-sd", load_file(TINY / "tiny-lcm/cond_proj.safetensors")
    (weight,) = own.values()
    config = UNet2DConditionModel.load_config(base / "unet")
    unet = UNet2DConditionModel.from_config({**config, "time_cond_proj_dim": weight.shape[1]})
    unet.load_state_dict(load_file(base / "unet/diffusion_pytorch_model.safetensors") | own)
    modules = Modules(
        network=unet,
        vae=AutoencoderKL.from_pretrained(base / "vae"),
        text=(),
        zero_empty=False,
        scheduler_config=dict(LCMScheduler.from_pretrained(TINY / "tiny-lcm/scheduler").config),
        device=torch.device("cpu"),
    )
    return UNetBackbone(modules, side, side)
