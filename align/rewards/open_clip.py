"""An open_clip model as a reward: the bare cosine of picture and prompt (HPSv2; arXiv 2306.09341).

open_clip's own CLIP class and on-disk layout (``open_clip_config.json``, ``open_clip_model.safetensors``).
The value is the **cosine without any scale**, as ``hpsv2.score`` returns it (benchmark tables print 100 times
that); the checkpoint's ``logit_scale`` is not used.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from align.checkpoints.weight_files import build, existing, fill, read_json, sha256
from align.rewards.clip import ContrastiveReward, load_tokenizer, settle, token_ids
from align.rewards.errors import WrongWeights
from align.rewards.pickles import read_weights
from align.rewards.preprocess import Variant

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
PUBLISHED = "ViT-H-14"
"""open_clip's name of HPSv2's architecture, versions 2.0 and 2.1."""


def clean(prompt: str) -> str:
    """open_clip's cleaning of prompts: mended characters, html entities, white space, lower case."""
    try:
        from ftfy import fix_text
    except ImportError:  # open_clip depends on it; without it only broken unicode reads differently.
        pass
    else:
        prompt = fix_text(prompt)
    return re.sub(r"\s+", " ", html.unescape(html.unescape(prompt))).strip().lower()


def make_model(config: Mapping[str, Any]) -> nn.Module:
    """open_clip's CLIP by the ``model_cfg`` part of its configuration."""
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    model: nn.Module = CLIP(
        embed_dim=config["embed_dim"],
        vision_cfg=CLIPVisionCfg(**config["vision_cfg"]),
        text_cfg=CLIPTextCfg(**config["text_cfg"]),
        quick_gelu=config.get("quick_gelu", False),
    )
    return model


def read_config(folder: Path) -> Mapping[str, Any]:
    """The ``model_cfg`` of a folder's ``open_clip_config.json``; without that file ViT-H-14, which HPSv2 is.

    Raises:
        WrongWeights: if it describes no open_clip model.
    """
    if not (folder / CONFIG).is_file():
        from open_clip import get_model_config

        published: Mapping[str, Any] = get_model_config(PUBLISHED)
        return published
    content = read_json(folder / CONFIG)
    try:
        config: Mapping[str, Any] = content["model_cfg"]
        config["text_cfg"]["context_length"], config["vision_cfg"]["image_size"]
    except (KeyError, TypeError):
        raise WrongWeights(f"{folder / CONFIG} is no open_clip configuration") from None
    return config


def tokenise(folder: Path | None, length: int) -> Callable[[str], Tensor]:
    """What turns a prompt into ids (1, length), 0 behind its end.

    With a folder its tokenizer behind open_clip's cleaning, else open_clip's own, whose vocabulary comes with
    the package.
    """
    if folder is not None:
        tokenizer = load_tokenizer(folder)
        return lambda prompt: token_ids(tokenizer, clean(prompt), length, pad=0)
    from open_clip.tokenizer import SimpleTokenizer

    own: Callable[[str], Tensor] = SimpleTokenizer(context_length=length)
    return own


def load_open_clip(
    name: str,
    folder: Path,
    tokenizer_folder: Path | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    file: str = WEIGHTS,
    variant: Variant = "hps",
) -> ContrastiveReward:
    """An open_clip reward from a folder in open_clip's layout.

    Args:
        name: name of the reward.
        folder: with the weights and, for another architecture than ViT-H-14, ``open_clip_config.json``.
        tokenizer_folder: where a tokenizer is; by default open_clip's own is used.
        device: where to run.
        dtype: data type of the towers; the score is always float32.
        file: name of the weight file, safetensors or a pickle (HPSv2's are half-precision pickles).
        variant: how pictures are resized; ``hps`` is HPSv2's with today's torchvision, ``hps2023`` with the
            one that its tables were made with.

    Raises:
        MissingWeights: if a file is not there.
        WrongWeights: if it holds something else.
    """
    config = read_config(folder)
    length, size = config["text_cfg"]["context_length"], config["vision_cfg"]["image_size"]
    ids = tokenise(tokenizer_folder, length)
    path = existing(folder / file)
    model = fill(build(lambda: make_model(config)), read_weights(path), path)
    device = torch.device(device)
    settle(model, ("visual",), device, dtype)

    def read(prompt: str) -> Tensor:
        embedding: Tensor = model.encode_text(ids(prompt))[0]  # type: ignore[operator]
        return embedding

    def see(pixels: Tensor, step: Tensor | None) -> Tensor:
        embedding: Tensor = model.encode_image(pixels)  # type: ignore[operator]
        return embedding

    return ContrastiveReward(
        name,
        model,
        see,
        read,
        1.0,
        size,
        variant,
        dtype,
        device,
        {"architecture": "open_clip CLIP", file: sha256(path), "preprocess": variant},
    )


def from_transformers(tensors: Mapping[str, Tensor], layers: Mapping[str, int]) -> dict[str, Tensor]:
    """Weights of transformers' CLIPModel under open_clip's names.

    Args:
        tensors: state of a CLIPModel.
        layers: number of layers, keys "text" and "vision".
    """
    out = {
        "logit_scale": tensors["logit_scale"],
        "text_projection": tensors["text_projection.weight"].T,
        "token_embedding.weight": tensors["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": tensors["text_model.embeddings.position_embedding.weight"],
        "visual.proj": tensors["visual_projection.weight"].T,
        "visual.class_embedding": tensors["vision_model.embeddings.class_embedding"],
        "visual.positional_embedding": tensors["vision_model.embeddings.position_embedding.weight"],
        "visual.conv1.weight": tensors["vision_model.embeddings.patch_embedding.weight"],
    }
    norms = {
        "ln_final": "text_model.final_layer_norm",
        "visual.ln_pre": "vision_model.pre_layrnorm",
        "visual.ln_post": "vision_model.post_layernorm",
    }
    for tower, prefix in (("text", ""), ("vision", "visual.")):
        for k in range(layers[tower]):
            source, target = f"{tower}_model.encoder.layers.{k}", f"{prefix}transformer.resblocks.{k}"
            for part in ("weight", "bias"):
                out[f"{target}.attn.in_proj_{part}"] = torch.cat(
                    [tensors[f"{source}.self_attn.{letter}_proj.{part}"] for letter in "qkv"]
                )
            norms |= {
                f"{target}.attn.out_proj": f"{source}.self_attn.out_proj",
                f"{target}.ln_1": f"{source}.layer_norm1",
                f"{target}.ln_2": f"{source}.layer_norm2",
                f"{target}.mlp.c_fc": f"{source}.mlp.fc1",
                f"{target}.mlp.c_proj": f"{source}.mlp.fc2",
            }
    for target, source in norms.items():
        for part in ("weight", "bias"):
            out[f"{target}.{part}"] = tensors[f"{source}.{part}"]
    return {name: tensor.contiguous() for name, tensor in out.items()}
