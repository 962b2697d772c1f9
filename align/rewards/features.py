"""Image embeddings that diversity is measured in: the image towers of registered rewards, by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from align.rewards.errors import UnknownReward

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor

    from align.rewards.clip import ContrastiveReward

FEATURES: dict[str, str] = {
    "clip_vit_l14": "clipscore",
    "shapes_pick": "shapes_pick",
    "shapes_hps": "shapes_hps",
    "pickscore": "pickscore",
    "hpsv2": "hpsv2",
    "hpsv21": "hpsv21",
}
"""The reward whose image tower it is, by name of the features; ``clip_vit_l14`` is that of the literature."""
CHUNK = 32
"""Rows of every call: the same picture has the same features whatever is measured beside it."""


def features_reward(name: str) -> str:
    """The reward whose image tower some features are of. Raises UnknownReward, which names the nearest."""
    if name not in FEATURES:
        raise UnknownReward("features", name, FEATURES)
    return FEATURES[name]


def load_features(name: str, device: torch.device | str = "cpu") -> ContrastiveReward:
    """The model of some features. Raises UnknownReward, and WeightsError where its weights cannot be had."""
    from align.rewards.clip import ContrastiveReward
    from align.rewards.registry import load

    reward = load(features_reward(name), device)
    assert isinstance(reward, ContrastiveReward)
    return reward


def embed(model: ContrastiveReward, images: Sequence[Image]) -> Tensor:
    """Embeddings of 8-bit pictures, (P, d) float32 on the CPU, not normalised.  Sizes may differ."""
    import torch

    from align.rewards.base import calls
    from align.rewards.preprocess import to_pictures

    found: dict[int, Tensor] = {}
    sized = model.size_images(images)
    for part, rows in calls([image.size for image in sized], CHUNK):
        with torch.no_grad():
            features = model.features(to_pictures([sized[k] for k in rows])).cpu()
        found |= zip(part, features, strict=False)
    return torch.stack([found[k] for k in range(len(images))])
