"""A checkpoint in one file, in the layout of the original Stable Diffusion, from modules of diffusers and transformers."""

import re

from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def original(unet: UNet2DConditionModel, vae: AutoencoderKL, text: CLIPTextModel) -> dict[str, Tensor]:
    """All tensors under the original names."""
    count, levels = unet.config.layers_per_block + 1, len(vae.config.block_out_channels)
    parts = {
        "model.diffusion_model.": {_of_unet(k, count): v for k, v in unet.state_dict().items()},
        "first_stage_model.": dict(_of_vae(k, v, levels) for k, v in vae.state_dict().items()),
        "cond_stage_model.transformer.text_model.": text.state_dict(),
    }
    return {f"{prefix}{k}": v.contiguous() for prefix, part in parts.items() for k, v in part.items()}


def _of_unet(name: str, count: int) -> str:
    for old, new in _ENDS.items():
        if name.startswith(f"{old}."):
            return f"{new}{name.removeprefix(old)}"
    if found := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.", name):
        place = f"middle_block.{2 * int(found[2]) if found[1] == 'resnets' else 1}"
    else:
        found = re.match(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.", name)
        block, kind, k = int(found[2]), found[3], int(found[4])
        if kind == "downsamplers":
            return f"input_blocks.{count * (block + 1)}.0.op.{name.rpartition('.')[2]}"
        if kind == "upsamplers":  # behind an attention, except in the first block, which has none
            return (
                f"output_blocks.{count * (block + 1) - 1}.{2 if block else 1}.conv.{name.rpartition('.')[2]}"
            )
        number = count * block + k + 1 if found[1] == "down" else count * block + k
        place = f"{'in' if found[1] == 'down' else 'out'}put_blocks.{number}.{int(kind == 'attentions')}"
    inner = name.removeprefix(found[0])
    if found[0].split(".")[-3] == "resnets":
        old = inner.rpartition(".")[0]
        inner = inner.replace(old, _RESNET[old])
    return f"{place}.{inner}"


def _of_vae(name: str, value: Tensor, levels: int) -> tuple[str, Tensor]:
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda one: f"mid.block_{int(one[1]) + 1}", name)
    name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets", lambda one: f"up.{levels - 1 - int(one[1])}.block", name)
    name = re.sub(
        r"up_blocks\.(\d)\.upsamplers\.0", lambda one: f"up.{levels - 1 - int(one[1])}.upsample", name
    )
    if found := re.search(r"mid_block\.attentions\.0\.(.+)\.(weight|bias)", name):
        name = name.replace("mid_block.attentions.0", "mid.attn_1").replace(found[1], _ATTENTION[found[1]])
        if found[2] == "weight" and found[1] != "group_norm":
            value = value[:, :, None, None]
    return name, value
