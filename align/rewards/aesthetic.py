"""A perceptron on the unit CLIP image embedding: how good a picture looks; the prompt is not read.

The form of LAION's improved aesthetic predictor: transformers' CLIPVisionModelWithProjection
(``config.json``, ``model.safetensors``) and five linear maps (``head.json`` with their widths,
``head.safetensors``).  The published head has no activations between them, so it is one affine map;
``head.json`` says which ("none" or "gelu"). Nothing holds the value to its training range, so strong guidance
can leave it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from align.rewards.base import Reward, check_pairing
from align.rewards.errors import WrongWeights
from align.rewards.files import build, existing, fill, read_json, read_tensors, sha256
from align.rewards.preprocess import Variant, fit, normalise, resize_images


class Head(nn.Module):
    """Linear maps from an embedding to one number.

    Args:
        widths: of the input and of every layer but the last, which is 1.
        activation: "gelu" between the layers, or "none" (the published form).
    """

    def __init__(self, widths: Sequence[int], activation: str):
        super().__init__()
        if activation not in ("gelu", "none"):
            raise WrongWeights(f"unknown activation {activation!r} of an aesthetic head")
        sizes = [*widths, 1]
        self.activation = activation
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, embedding: Tensor) -> Tensor:
        """(P, d) unit embeddings to (P,)."""
        for k, layer in enumerate(self.layers):
            embedding = layer(embedding)
            if self.activation == "gelu" and k + 1 < len(self.layers):
                embedding = F.gelu(embedding)
        return embedding[:, 0]


class AestheticReward(Reward):
    """Head of the unit image embedding; prompts only have to be as many as pictures."""

    variant: Variant = "clip"

    def __init__(
        self,
        name: str,
        tower: CLIPVisionModelWithProjection,
        head: Head,
        fingerprint: dict[str, str],
    ):
        self.name = name
        self.tower, self.head = tower, head
        config: Any = tower.config
        self.size: int = config.image_size
        self.fingerprint = fingerprint

    def score(self, pictures: Tensor, prompts: Sequence[str], step: Tensor | None = None) -> Tensor:
        """See :meth:`Reward.score`."""
        check_pairing(pictures, prompts, step)
        weight = self.tower.visual_projection.weight
        pixels = normalise(fit(pictures.to(weight.device).float(), self.size, self.variant))
        embedding = self.tower(pixel_values=pixels.to(weight.dtype)).image_embeds
        return self.head(F.normalize(embedding.float(), dim=-1))

    def prepare_images(
        self, images: list[Image.Image], convert: Callable[[list[Image.Image]], Tensor]
    ) -> Tensor:
        """Pictures sized by Pillow."""
        return convert(resize_images(images, self.size, self.variant))


def load_aesthetic(
    name: str,
    folder: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> AestheticReward:
    """An aesthetic predictor from a folder.

    Args:
        name: name of the reward.
        folder: with ``config.json``, ``model.safetensors``, ``head.json`` and ``head.safetensors``.
        device: where to run.
        dtype: data type of the tower; the head is always float32.

    Raises:
        MissingWeights: if a file is not there.
        WrongWeights: if it holds something else.
    """
    config = CLIPVisionConfig(**read_json(folder / "config.json"))
    shape = read_json(folder / "head.json")
    tower_path, head_path = existing(folder / "model.safetensors"), existing(folder / "head.safetensors")
    if not isinstance(shape.get("widths"), list):
        raise WrongWeights(f"{folder / 'head.json'} names no widths")
    tower = build(lambda: CLIPVisionModelWithProjection(config))
    fill(tower, read_tensors(tower_path), tower_path, optional=("position_ids",))
    tower.to(device=device, dtype=dtype)
    head = build(lambda: Head(shape["widths"], shape.get("activation", "none")))
    fill(head, read_tensors(head_path), head_path)
    return AestheticReward(
        name,
        tower,
        head.to(device=device),
        {
            "architecture": "MLP on transformers CLIPVisionModelWithProjection",
            "model.safetensors": sha256(tower_path),
            "head.safetensors": sha256(head_path),
        },
    )
