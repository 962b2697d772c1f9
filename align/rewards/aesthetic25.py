"""Aesthetic Predictor V2.5: the same kind of head on SigLIP's image embedding; the prompt is not read.

transformers' SiglipVisionModel, of a folder of a whole SigLIP, and five linear maps without activations on its unit pooled
output: one affine map again.  Its scale is not that of LAION's predictor.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import SiglipVisionConfig, SiglipVisionModel

from align.checkpoints.weight_files import build, fill, read_json, read_tensors, sha256, weights_of
from align.errors import WrongWeights
from align.rewards.aesthetic import AestheticReward, published_head


class SiglipAestheticReward(AestheticReward):
    """Head of SigLIP's unit pooled output."""

    variant = "stretch"
    mean = (0.5, 0.5, 0.5)
    std = (0.5, 0.5, 0.5)

    def embed(self, pixels: Tensor) -> Tensor:
        embedding: Tensor = self.tower(pixel_values=pixels).pooler_output
        return embedding


def load_aesthetic25(
    name: str,
    folder: Path,
    head: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> SiglipAestheticReward:
    """A SigLIP folder (``config.json``, ``model.safetensors``) and the published ``head``. Raises WeightsError.

    ``dtype`` is the tower's; the head works in float32.
    """
    content = read_json(folder / "config.json").get("vision_config")
    if not isinstance(content, dict):
        raise WrongWeights(f"{folder / 'config.json'} does not describe a SigLIP with an image tower")
    config = SiglipVisionConfig(**content)
    path, hashes = weights_of(folder, "model.safetensors")
    prefix = "vision_model."
    tensors = {
        key.removeprefix(prefix): value for key, value in read_tensors(path).items() if key.startswith(prefix)
    }
    tower = fill(build(lambda: SiglipVisionModel(config)), tensors, path, optional=("position_ids",))
    perceptron = published_head(head, config.hidden_size, "scoring_head.").to(device=device)
    facts = {"architecture": "MLP on transformers SiglipVisionModel", **hashes, head.name: sha256(head)}
    return SiglipAestheticReward(name, tower.to(device=device, dtype=dtype), perceptron, facts)
