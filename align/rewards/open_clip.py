"""An open_clip model as a reward: the bare cosine of picture and prompt (HPSv2; arXiv 2306.09341).

open_clip's own CLIP class and on-disk layout (``open_clip_config.json``, ``open_clip_model.safetensors``).
The value is the **cosine without any scale**, as ``hpsv2.score`` returns it (benchmark tables print 100 times
that); the checkpoint's ``logit_scale`` is not used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from align.checkpoints.weight_files import build, existing, fill, read_json, sha256
from align.errors import WrongWeights
from align.rewards.clip import ContrastiveReward, load_tokenizer, settle, token_ids
from align.rewards.pickles import read_weights
from align.rewards.preprocess import Variant

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
PUBLISHED = "ViT-H-14"
"""open_clip's name of HPSv2's architecture, versions 2.0 and 2.1."""


def make_model(config: Mapping[str, Any]) -> nn.Module:
    """open_clip's CLIP by the ``model_cfg`` part of its configuration."""
    from open_clip.model import CLIP

    sizes = {key: config[key] for key in ("embed_dim", "vision_cfg", "text_cfg")}
    model: nn.Module = CLIP(**sizes, quick_gelu=config.get("quick_gelu", False))
    return model


def read_config(folder: Path) -> Mapping[str, Any]:
    """The ``model_cfg`` of a folder's ``CONFIG``, without that file of ViT-H-14, which HPSv2 is. Raises WrongWeights."""
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
    """What turns a prompt into ids (1, length), 0 behind its end: a folder's tokenizer, cleaned as open_clip, or its own."""
    from open_clip.tokenizer import SimpleTokenizer, get_clean_fn

    if folder is not None:
        tokenizer, clean = load_tokenizer(folder), get_clean_fn("lower")
        return lambda prompt: token_ids(tokenizer, clean(prompt), length, pad=0)
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
    """An open_clip reward from a folder with the weights and, for another architecture than ViT-H-14, ``CONFIG``.

    The weights are safetensors or a pickle (HPSv2's are half-precision pickles); without a tokenizer's folder open_clip's
    own is used; ``dtype`` is the image tower's. Raises MissingWeights, WrongWeights.
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

    facts = {"architecture": "open_clip CLIP", file: sha256(path), "preprocess": variant}
    return ContrastiveReward(name, model, see, read, 1.0, size, variant, dtype, device, facts)
