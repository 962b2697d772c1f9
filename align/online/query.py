"""Asking the black box: what it said of a round's pictures, and their features, kept as ``data.safetensors``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from align import writing
from align.errors import WrongWeights
from align.online.rounds import Online
from align.pictures import read_picture
from align.rewards.base import calls
from align.rewards.features import CHUNK, features_reward
from align.rewards.preprocess import to_pictures
from align.runner.build import load_reward
from align.runner.devices import torch_device
from align.store.index import rows_of
from align.surrogates.frame import Asked
from align.surrogates.surrogate import KEY

if TYPE_CHECKING:
    from PIL.Image import Image

    from align.rewards.clip import ContrastiveReward


def query(online: Online, round_: int) -> Asked:
    """What the black box said of a finished round's pictures, with noise; what it gave no number for is left out.

    The value is the metric that the run measured; the noise is keyed by the picture's own identity.
    """
    folder, name = online.folder_of(round_), online.blackbox
    rows = [row for row in rows_of(folder) if row["image"] and row.get(name) is not None]
    if not rows:
        return Asked(torch.empty(0, 0), torch.empty(0), ())
    pictures = [read_picture(folder / row["image"]) for row in rows]
    device = torch_device(online.config.run.device)
    tower = cast("ContrastiveReward", load_reward(features_reward(online.surrogate.features), device))
    answers = torch.tensor([online.answer(row["key"], float(row[name])) for row in rows])
    prompts = tuple(str(row["prompt"]) for row in rows)
    return Asked(features_of(tower, pictures), answers, prompts).finite()


@torch.no_grad()
def features_of(tower: ContrastiveReward, pictures: Sequence[Image]) -> Tensor:
    """(P, d) unit features on the CPU, by the very function that a guiding surrogate reads."""
    found: dict[int, Tensor] = {}
    for part, rows in calls([picture.size for picture in pictures], CHUNK):
        features = tower.image_embeddings(to_pictures([pictures[row] for row in rows])).cpu()
        found |= zip(part, features, strict=False)
    return torch.stack([found[row] for row in range(len(pictures))])


def save_asked(asked: Asked, path: Path) -> None:
    """Keep all that was asked so far. Raises OSError."""
    tensors = {"features": asked.features.contiguous(), "values": asked.values.contiguous()}
    writing.write_bytes(path, save(tensors, {KEY: json.dumps({"prompts": asked.prompts})}))


def read_asked(path: Path) -> Asked:
    """What was kept. Raises WrongWeights: the file is damaged."""
    try:
        with safe_open(path, "pt") as file:
            prompts = tuple(json.loads((file.metadata() or {})[KEY])["prompts"])
            return Asked(file.get_tensor("features"), file.get_tensor("values"), prompts)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise WrongWeights(
            f"{path} is damaged ({error}): remove it, and the same command asks again"
        ) from error
