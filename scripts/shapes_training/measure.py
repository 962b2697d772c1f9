"""How well rewards follow the definition of preference on pictures of held-out prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.stats import spearmanr

from align.rewards.base import Reward
from align.shapes.render import PICTURE
from align.shapes.utility import MARGIN
from scripts.shapes_training.judged import Judged
from scripts.shapes_training.spoil import to_float


@torch.no_grad()
def score_all(
    reward: Reward, pictures: np.ndarray, texts: Sequence[str], step: int | None = None, size: int = 64
) -> np.ndarray:
    """Scores (n,) of (n, 64, 64, 3) uint8 pictures for n texts, all at one timestep."""
    parts = []
    for k in range(0, len(pictures), size):
        part = to_float(pictures[k : k + size])
        steps = None if step is None else torch.full((len(part),), step)
        parts.append(reward.score(part, list(texts[k : k + size]), steps).cpu())
    return torch.cat(parts).numpy()


def pair_accuracy(scores: np.ndarray, utilities: np.ndarray, margin: float = MARGIN) -> tuple[float, int]:
    """Share of right orders among pairs within groups, (n, m) each, that differ by more than ``margin``.

    Returns:
        The share and the number of pairs; a score tie counts half.
    """
    difference = utilities[:, :, None] - utilities[:, None, :]
    gap = (scores[:, :, None] - scores[:, None, :])[difference > margin]
    return float(((gap > 0) + 0.5 * (gap == 0)).mean()) if gap.size else float("nan"), int(gap.size)


def evaluate(rewards: dict[str, Reward], data: Judged) -> dict[str, float]:
    """How well rewards follow the definition of preference on pictures of held-out prompts.

    Args:
        rewards: loaded rewards by name.
        data: groups of pictures of one file of ``generate``, so with the same timesteps.

    Returns:
        ``<name>``: pair accuracy of each reward on finished pictures (Spearman's correlation with
        ``align.shapes.utility.aesthetic`` for ``shapes_aesthetic``); ``<name>@<timestep>``: pair
        accuracy on one-step predictions for ``shapes_pick`` and ``shapes_spm``; ``pairs``: number of pairs.
    """
    n, m = data.pictures.shape[:2]
    texts = [prompt.text() for prompt in data.prompts for _ in range(m)]
    flat = data.pictures.reshape(-1, PICTURE, PICTURE, 3)
    utilities = data.utilities()
    found: dict[str, float] = {}
    for name, reward in rewards.items():
        scores = score_all(reward, flat, texts)
        if name == "shapes_aesthetic":
            found[name] = float(spearmanr(scores, data.aesthetics.reshape(-1)).statistic)
            continue
        found[name], pairs = pair_accuracy(scores.reshape(n, m), utilities)
        found["pairs"] = pairs
        if data.predictions is None or data.timesteps is None or name not in ("shapes_pick", "shapes_spm"):
            continue
        for k, step in enumerate(data.timesteps[0]):
            early = data.predictions[:, :, k].reshape(-1, PICTURE, PICTURE, 3)
            scores = score_all(reward, early, texts, int(step))
            found[f"{name}@{int(step)}"] = pair_accuracy(scores.reshape(n, m), utilities)[0]
    return found
