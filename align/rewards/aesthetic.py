"""A perceptron on the unit CLIP image embedding: how good a picture looks; the prompt is not read.

The form of LAION's improved aesthetic predictor: transformers' CLIPVisionModelWithProjection
(``config.json``, ``model.safetensors``) and five linear maps.  The published head has no activations between
them, so it is one affine map with values from -12.8 to 23.2 on unit vectors (about 4.5 to 7 on pictures); a head
of one's own (``head.json`` with its widths, ``head.safetensors``) says "none" or "gelu".  Nothing holds the
value to its training range, so strong guidance can leave it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from align.checkpoints.weight_files import build, existing, fill, read_json, read_tensors, sha256, weights_of
from align.errors import WrongWeights
from align.rewards.base import check_pairing
from align.rewards.clip import TowerReward, clip_config
from align.rewards.pickles import read_weights

PUBLISHED_WIDTHS = (1024, 128, 64, 16)
"""Widths between the embedding and the last number, of LAION's head and of ImageReward's."""


def numbered(tensors: Mapping[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    """The tensors ``old<k>.weight`` of a published head as ``new<k>.weight``, without its dropouts' numbers."""
    found = {key: key.removeprefix(old).partition(".") for key in tensors if key.startswith(old)}
    places = sorted({int(place) for place, _, _ in found.values() if place.isdigit()})
    names = {
        key: f"{new}{places.index(int(place))}.{rest}"
        for key, (place, _, rest) in found.items()
        if place.isdigit()
    }
    return {names.get(key, key): value for key, value in tensors.items()}


class Head(nn.Module):
    """Linear maps from an embedding to one number, whose ``widths`` are the input's and those of every layer but the last.

    ``activation`` is "gelu" between the layers, or "none" (the published form).
    """

    def __init__(self, widths: Sequence[int], activation: str):
        super().__init__()
        if activation not in ("gelu", "none"):
            raise WrongWeights(f"unknown activation {activation!r} of an aesthetic head")
        self.activation = activation
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise([*widths, 1]))

    def forward(self, embedding: Tensor) -> Tensor:
        """(P, d) unit embeddings to (P,)."""
        for k, layer in enumerate(self.layers):
            embedding = layer(embedding)
            if self.activation == "gelu" and k + 1 < len(self.layers):
                embedding = F.gelu(embedding)
        return embedding[:, 0]


class AestheticReward(TowerReward):
    """Head of the unit image embedding; prompts only have to be as many as pictures."""

    def __init__(self, name: str, tower: Any, head: Head, fingerprint: dict[str, str]):
        self.name, self.tower, self.head = name, tower, head
        self.size = tower.config.image_size
        self.fingerprint = fingerprint

    def score(self, pictures: Tensor, prompts: Sequence[str], step: Tensor | None = None) -> Tensor:
        check_pairing(pictures, prompts, step)
        weight = next(self.tower.parameters())
        embedding = self.embed(self.pixels(pictures, weight.device, weight.dtype))
        out: Tensor = self.head(F.normalize(embedding.float(), dim=-1))
        return out

    def embed(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (P, 3, size, size) as embeddings (P, d)."""
        embedding: Tensor = self.tower(pixel_values=pixels).image_embeds
        return embedding


def load_aesthetic(
    name: str,
    folder: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    head: Path | None = None,
) -> AestheticReward:
    """An aesthetic predictor from a folder.

    It has ``config.json`` and ``model.safetensors`` of an image tower, or of a whole CLIP whose text tower is then left
    out; without a published ``head`` also ``head.json`` and ``head.safetensors``.  ``dtype`` is the tower's. Raises
    MissingWeights, WrongWeights.
    """
    tower, hashes = _load_tower(folder)
    head_path = head or folder / "head.safetensors"
    perceptron = _own_head(folder) if head is None else published_head(head, tower.config.projection_dim)
    made = {"architecture": "MLP on transformers CLIPVisionModelWithProjection"}
    facts = {**made, **hashes, head_path.name: sha256(head_path)}
    return AestheticReward(name, tower.to(device=device, dtype=dtype), perceptron.to(device=device), facts)


def published_head(path: Path, width: int, prefix: str = "layers.") -> Head:
    """A head without activations of embeddings of ``width`` numbers, float32. Raises WeightsError."""
    tensors = numbered(read_weights(path), prefix, "layers.")
    return fill(build(lambda: Head((width, *PUBLISHED_WIDTHS), "none")), tensors, path)


def _load_tower(folder: Path) -> tuple[Any, dict[str, str]]:
    """The image tower of a folder, float32, and the hashes of the files that it came from."""
    content = read_json(folder / "config.json")
    path, hashes = weights_of(folder, "model.safetensors")
    tensors = read_tensors(path)
    if "vision_config" in content:
        whole = clip_config(folder)
        config = whole.vision_config
        config.projection_dim = whole.projection_dim
        parts = ("vision_model.", "visual_projection.")
        tensors = {key: value for key, value in tensors.items() if key.startswith(parts)}
    else:
        config = CLIPVisionConfig(**content)
    tower = build(lambda: CLIPVisionModelWithProjection(config))
    return fill(tower, tensors, path, optional=("position_ids",)), hashes


def _own_head(folder: Path) -> Head:
    shape = read_json(folder / "head.json")
    if not isinstance(shape.get("widths"), list):
        raise WrongWeights(f"{folder / 'head.json'} names no widths")
    path = existing(folder / "head.safetensors")
    head = build(lambda: Head(shape["widths"], shape.get("activation", "none")))
    return fill(head, read_tensors(path), path)
