"""CLIP as a reward: exp(logit_scale) times the cosine of picture and prompt (PickScore; arXiv 2305.01569).

transformers' own CLIPModel in its own on-disk layout, so any PickScore-like checkpoint loads:
``config.json``, ``model.safetensors`` and a tokenizer.  The scale is the checkpoint's, never a constant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from align.checkpoints.weight_files import build, fill, read_json, read_tensors, weights_of
from align.errors import MissingWeights, WrongWeights
from align.rewards.base import Reward, TextCache, check_pairing
from align.rewards.preprocess import CLIP_MEAN, CLIP_STD, Variant, fit, normalise, resize_images


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """A CLIP tokenizer from a folder. Raises MissingWeights, WrongWeights: there is none, or it cannot be read."""
    if not ((folder / "tokenizer.json").is_file() or (folder / "vocab.json").is_file()):
        raise MissingWeights(f"missing {folder / 'tokenizer.json'}")
    try:
        return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:
        raise WrongWeights(f"{folder} holds no CLIP tokenizer: {str(error).splitlines()[0]}") from None


def token_ids(tokenizer: CLIPTokenizer, prompt: str, length: int, pad: int | None = None) -> Tensor:
    """Token ids of one prompt, (1, length): truncated, padded with ``pad`` or else <|endoftext|>."""
    ids = tokenizer(prompt, truncation=True, max_length=length).input_ids
    filler = tokenizer.eos_token_id if pad is None else pad
    return torch.tensor([ids + [filler] * (length - len(ids))])


def clip_config(folder: Path) -> Any:
    """The CLIPConfig of ``config.json``, whose fields transformers types as unions. Raises MissingWeights, WrongWeights."""
    content = read_json(folder / "config.json")
    if "text_config" not in content or "vision_config" not in content:
        raise WrongWeights(f"{folder / 'config.json'} does not describe a CLIP with two towers")
    try:
        return CLIPConfig(**content)
    except Exception as error:  # the validators have classes of their own
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise WrongWeights(f"{folder / 'config.json'} describes no CLIP: {' '.join(lines)}") from None


def settle(model: nn.Module, seeing: Sequence[str], device: torch.device, dtype: torch.dtype) -> None:
    """Send the parts of a model that see pictures to where they work, in the numbers that they work in.

    What reads prompts stays on the CPU in float32: it reads each once, and has half the weights of a ViT-H.
    """
    for name in seeing:
        model.get_submodule(name).to(device=device, dtype=dtype)


class TowerReward(Reward):
    """A reward whose image tower sees pictures of one size; ``variant`` is how they are brought to it.

    ``mean`` and ``std`` are the channels'.
    """

    padded = True
    variant: Variant = "clip"
    mean = CLIP_MEAN
    std = CLIP_STD
    size: int

    def pixels(self, pictures: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Pictures (P, 3, H, W) in [0, 1] as the tower's input (P, 3, size, size)."""
        return normalise(fit(pictures.to(device).float(), self.size, self.variant), self.mean, self.std).to(
            dtype
        )

    def size_images(self, images: Sequence[Image.Image]) -> list[Image.Image]:
        return resize_images(images, self.size, self.variant)


@dataclass(eq=False, repr=False)
class ContrastiveReward(TowerReward):
    """Scale times the cosine of an image tower's and a text tower's embedding.

    ``model`` holds both towers, settled; ``see`` makes of normalised pixels (P, 3, size, size) and timesteps image
    embeddings (P, d), in ``dtype`` on ``device``; ``read`` makes of a prompt its embedding (d,), on the CPU.
    """

    name: str
    model: nn.Module
    see: Callable[[Tensor, Tensor | None], Tensor]
    read: Callable[[str], Tensor]
    scale: float
    size: int
    variant: Variant = field()
    dtype: torch.dtype
    device: torch.device
    fingerprint: dict[str, str]

    def __post_init__(self) -> None:
        self.texts = TextCache(lambda prompt: F.normalize(self.read(prompt).float(), dim=-1).to(self.device))

    def features(self, pictures: Tensor, step: Tensor | None = None) -> Tensor:
        """Image embeddings (P, d) float32 as the tower gives them, not normalised."""
        return self.see(self.pixels(pictures, self.device, self.dtype), step).float()

    def image_embeddings(self, pictures: Tensor, step: Tensor | None = None) -> Tensor:
        """Unit image embeddings (P, d) float32."""
        return F.normalize(self.features(pictures, step), dim=-1)

    def score(self, pictures: Tensor, prompts: Sequence[str], step: Tensor | None = None) -> Tensor:
        check_pairing(pictures, prompts, step)
        return self.scale * (self.image_embeddings(pictures, step) * self.texts(prompts)).sum(-1)


def load_clip(
    name: str,
    folder: Path,
    tokenizer_folder: Path | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    scaled: bool = True,
    variant: Variant = "clip_floor",
) -> ContrastiveReward:
    """A CLIP reward from a folder in transformers' layout, which has the tokenizer too unless that is elsewhere.

    ``scaled`` multiplies the cosine by exp(logit_scale), as PickScore does and CLIPScore does not; ``variant`` is
    how pictures are sized, by default as transformers does; ``dtype`` is the image tower's. Raises MissingWeights, WrongWeights.
    """
    config = clip_config(folder)
    tokenizer = load_tokenizer(tokenizer_folder or folder)
    path, hashes = weights_of(folder, "model.safetensors")
    model = build(lambda: CLIPModel(config))
    fill(model, read_tensors(path), path, optional=("position_ids",))
    scale = float(model.logit_scale.exp()) if scaled else 1.0
    device = torch.device(device)
    settle(model, ("vision_model", "visual_projection"), device, dtype)
    length = config.text_config.max_position_embeddings

    def read(prompt: str) -> Tensor:
        pooled = model.text_model(input_ids=token_ids(tokenizer, prompt, length)).pooler_output
        embedding: Tensor = model.text_projection(pooled)[0]
        return embedding

    def see(pixels: Tensor, step: Tensor | None) -> Tensor:
        embedding: Tensor = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)
        return embedding

    size = config.vision_config.image_size
    facts = {"architecture": "transformers CLIPModel", **hashes, "scale": f"{scale:g}"}
    return ContrastiveReward(name, model, see, read, scale, size, variant, dtype, device, facts)
