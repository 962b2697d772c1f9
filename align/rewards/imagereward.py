"""BLIP with a regression head (ImageReward; arXiv 2304.05977): the text attends to the picture.

transformers' BlipVisionModel and BlipTextModel; all image tokens are keys and values of every text layer, the
text is **not** causal, and the hidden state of its first token goes through linear maps without activations.
The value is standardised, ``(x - mean) / deviation``, and mostly between -2.3 and 2.  Unlike a CLIP the
whole text tower has to run for every picture; only token ids are kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    BertTokenizer,
    BlipTextConfig,
    BlipTextModel,
    BlipVisionConfig,
    BlipVisionModel,
    CLIPTokenizer,
)

from align.checkpoints.weight_files import build, existing, fill, read_json, sha256
from align.errors import WrongWeights
from align.rewards.aesthetic import PUBLISHED_WIDTHS, numbered
from align.rewards.base import TextCache, check_pairing
from align.rewards.clip import TowerReward, load_tokenizer
from align.rewards.pickles import read_weights

PUBLISHED: Mapping[str, Any] = {
    "vision_config": {
        "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
        "image_size": 224, "patch_size": 16, "hidden_act": "gelu", "layer_norm_eps": 1e-6,
    },
    "text_config": {
        "vocab_size": 30524, "hidden_size": 768, "encoder_hidden_size": 1024, "intermediate_size": 3072,
        "num_hidden_layers": 12, "num_attention_heads": 12, "max_position_embeddings": 512, "hidden_act": "gelu",
        "layer_norm_eps": 1e-12, "is_decoder": True, "pad_token_id": 0,
    },
    "head": PUBLISHED_WIDTHS,
    "mean": 0.16717362830052426,
    "deviation": 1.0333394966054072,
    "max_length": 35,
}  # fmt: skip
"""ImageReward v1.0: ViT-L/16, BERT-base that attends to it, five linear maps; 35 tokens, later ones are cut."""


class BlipRegressor(nn.Module):
    """Picture and text to one number.

    ``text`` must say ``is_decoder=True``, or there would be no cross-attention; ``head`` are the widths of the linear maps
    between the text's own width and 1; ``mean`` is subtracted from their output, the difference divided by ``deviation``.
    """

    def __init__(
        self,
        vision: BlipVisionConfig,
        text: BlipTextConfig,
        head: Sequence[int],
        mean: float = 0.0,
        deviation: float = 1.0,
    ):
        super().__init__()
        self.vision_model = BlipVisionModel._from_config(vision)
        self.text_model = BlipTextModel(text, add_pooling_layer=False)
        widths = [text.hidden_size, *head, 1]
        self.head = nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(widths)))
        self.mean, self.deviation = mean, deviation

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Normalised pixels (P, 3, size, size), token ids and mask (P, length) to (P,) float32."""
        seen = self.vision_model(pixel_values=pixels).last_hidden_state
        read = self.text_model(
            input_ids=ids,
            attention_mask=mask,
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long, device=seen.device),
        )
        # The head stays in float32: in half precision it costs more than all the rest.
        value: Tensor = read.last_hidden_state[:, 0].float()
        for layer in self.head:
            assert isinstance(layer, nn.Linear)
            value = nn.functional.linear(value, layer.weight.float(), layer.bias.float())
        return (value[:, 0] - self.mean) / self.deviation


class ImageRewardModel(TowerReward):
    """Standardised regression value of a BLIP; ``ids`` makes of a prompt token ids and mask, see ``padded``."""

    def __init__(
        self, name: str, model: BlipRegressor, ids: Callable[[str], Tensor], size: int, facts: dict[str, str]
    ):
        self.name, self.model, self.size, self.fingerprint = name, model, size, facts
        self.texts = TextCache(ids)

    def score(self, pictures: Tensor, prompts: Sequence[str], step: Tensor | None = None) -> Tensor:
        check_pairing(pictures, prompts, step)
        weight = self.model.vision_model.embeddings.class_embedding
        ids, mask = self.texts(prompts).unbind(1)
        out: Tensor = self.model(self.pixels(pictures, weight.device, weight.dtype), ids, mask)
        return out


def padded(tokenizer: CLIPTokenizer | BertTokenizer, prompt: str, length: int) -> Tensor:
    """Token ids and attention mask of one prompt, (2, length) int64, truncated and padded to one length."""
    ids = tokenizer(prompt, truncation=True, max_length=length).input_ids
    rest = length - len(ids)
    return torch.tensor([ids + [tokenizer.pad_token_id] * rest, [1] * len(ids) + [0] * rest])


def bert_tokenizer(folder: Path) -> BertTokenizer:
    """bert-base-uncased's WordPiece with BLIP's two tokens behind its vocabulary, [DEC] 30522 and [ENC] 30523.

    Neither token is put into a prompt; they matter to one that spells them out. Raises MissingWeights, WrongWeights.
    """
    path = existing(folder / "vocab.txt")
    try:
        tokenizer = BertTokenizer.from_pretrained(str(folder), local_files_only=True, do_lower_case=True)
        tokenizer.add_tokens(["[DEC]", "[ENC]"], special_tokens=True)
    except Exception as error:
        raise WrongWeights(f"{path} holds no BERT vocabulary: {str(error).splitlines()[0]}") from None
    return tokenizer


def from_published(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The published checkpoint's tensors under ``BlipRegressor``'s names.

    Two projections of BLIP's pre-training and a buffer of positions are not used and left out; what is unknown
    keeps its name, for ``fill`` to refuse.
    """
    named = {_renamed(key): value for key, value in tensors.items() if not key.startswith(_UNUSED)}
    return numbered(named, "mlp.layers.", "head.")


_UNUSED = ("blip.vision_proj.", "blip.text_proj.", "blip.text_encoder.embeddings.position_ids")
_VISION = (
    (r"cls_token$", "embeddings.class_embedding"),
    (r"pos_embed$", "embeddings.position_embedding"),
    (r"patch_embed\.proj\.", "embeddings.patch_embedding."),
    (r"blocks\.(\d+)\.norm([12])\.", r"encoder.layers.\1.layer_norm\2."),
    (r"blocks\.(\d+)\.attn\.qkv\.", r"encoder.layers.\1.self_attn.qkv."),
    (r"blocks\.(\d+)\.attn\.proj\.", r"encoder.layers.\1.self_attn.projection."),
    (r"blocks\.(\d+)\.mlp\.", r"encoder.layers.\1.mlp."),
    (r"norm\.", "post_layernorm."),
)
"""Starts of the image tower's names, as published and in transformers."""


def _renamed(key: str) -> str:
    if key.startswith("blip.text_encoder."):
        return f"text_model.{key.removeprefix('blip.text_encoder.')}"
    if key.startswith("blip.visual_encoder."):
        own = key.removeprefix("blip.visual_encoder.")
        for pattern, new in _VISION:
            if re.match(pattern, own):
                return f"vision_model.{re.sub('^' + pattern, new, own)}"
    return key


def read_config(folder: Path) -> Mapping[str, Any]:
    """The folder's ``config.json`` if it describes a regressor; without one the published sizes. Raises WrongWeights."""
    path = folder / "config.json"
    content = read_json(path) if path.is_file() else {}
    return content if "head" in content else PUBLISHED


def load_imagereward(
    name: str,
    folder: Path,
    tokenizer_folder: Path | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    file: str = "model.safetensors",
) -> ImageRewardModel:
    """An ImageReward-like model from a folder.

    It has the weights, safetensors or a pickle with the published names or transformers', and for other sizes than the
    published ones ``config.json`` with the keys of ``PUBLISHED``.  The tokenizer is BERT's where its folder, by default
    the same, holds ``vocab.txt`` alone.  ``dtype`` is the towers'. Raises MissingWeights, WrongWeights.
    """
    content = read_config(folder)
    path = existing(folder / file)
    try:
        vision, text = BlipVisionConfig(**content["vision_config"]), BlipTextConfig(**content["text_config"])
        make = lambda: BlipRegressor(vision, text, content["head"], content["mean"], content["deviation"])  # noqa: E731
        length, model = int(content["max_length"]), build(make)
    except (KeyError, TypeError) as error:
        raise WrongWeights(f"{folder / 'config.json'} does not describe a BLIP regressor: {error}") from None
    fill(model, from_published(read_weights(path)), path, optional=("position_ids",))
    words = tokenizer_folder or folder
    if (words / "tokenizer.json").is_file():
        tokenizer: CLIPTokenizer | BertTokenizer = load_tokenizer(words)
    else:
        tokenizer = bert_tokenizer(words)
        if len(tokenizer) != text.vocab_size:
            raise WrongWeights(
                f"{words / 'vocab.txt'} makes {len(tokenizer)} tokens, the model reads {text.vocab_size}"
            )
    facts = {"architecture": "BLIP with a regression head", file: sha256(path)}
    size = int(content["vision_config"]["image_size"])
    model = model.to(device=device, dtype=dtype)
    return ImageRewardModel(
        name, model, lambda prompt: padded(tokenizer, prompt, length).to(device), size, facts
    )
