"""Every reward by name, with what can be known without importing torch, and how to load it."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from align.rewards.errors import MissingWeights, UnknownReward

if TYPE_CHECKING:
    import torch

    from align.rewards.base import Reward

EMBEDDED = Path(__file__).parent.parent / "shapes" / "weights"
"""Where the weights of the embedded world are."""

Loader = Callable[[str, Path, "torch.device | str", "torch.dtype"], "Reward"]


@dataclass(frozen=True)
class RewardSpec:
    """What is known about a reward before it is loaded.

    Attributes:
        summary: one line for ``--help``.
        differentiable: whether guidance can use it.
        takes_timestep: whether it judges one-step predictions by their timestep.
        weights: names of the folders that it needs under the weights folder; none if it is not a model.
        loader: called as ``loader(name, weights_folder, device, dtype)``; imports what it needs.
    """

    summary: str
    differentiable: bool
    takes_timestep: bool
    weights: tuple[str, ...]
    loader: Loader


def _shapes_pick(name: str, folder: Path, device: torch.device | str, dtype: torch.dtype) -> Reward:
    from align.rewards.clip import load_clip

    return load_clip(name, folder / name, folder / "tokenizer", device, dtype)


def _shapes_hps(name: str, folder: Path, device: torch.device | str, dtype: torch.dtype) -> Reward:
    from align.rewards.open_clip import load_open_clip

    return load_open_clip(name, folder / name, folder / "tokenizer", device, dtype)


def _shapes_imagereward(name: str, folder: Path, device: torch.device | str, dtype: torch.dtype) -> Reward:
    from align.rewards.imagereward import load_imagereward

    return load_imagereward(name, folder / name, folder / "tokenizer", device, dtype)


def _shapes_aesthetic(name: str, folder: Path, device: torch.device | str, dtype: torch.dtype) -> Reward:
    from align.rewards.aesthetic import load_aesthetic

    return load_aesthetic(name, folder / name, device, dtype)


def _shapes_spm(name: str, folder: Path, device: torch.device | str, dtype: torch.dtype) -> Reward:
    from align.rewards.step_aware import load_step_aware

    return load_step_aware(name, folder / name, folder / "tokenizer", device, dtype)


def _jpeg(name: str, folder: Path, device: torch.device | str, dtype: torch.dtype) -> Reward:
    from align.rewards.jpeg import JpegReward

    return JpegReward(name, -1.0 if name == "jpeg_compressibility" else 1.0)


REWARDS: dict[str, RewardSpec] = {
    "shapes_pick": RewardSpec(
        "CLIP tuned on preference pairs, like PickScore: exp(logit_scale) * cosine",
        True,
        False,
        ("shapes_pick", "tokenizer"),
        _shapes_pick,
    ),
    "shapes_hps": RewardSpec(
        "open_clip model tuned on rankings, like HPSv2: the bare cosine",
        True,
        False,
        ("shapes_hps", "tokenizer"),
        _shapes_hps,
    ),
    "shapes_imagereward": RewardSpec(
        "BLIP with a regression head, like ImageReward: standardised value",
        True,
        False,
        ("shapes_imagereward", "tokenizer"),
        _shapes_imagereward,
    ),
    "shapes_aesthetic": RewardSpec(
        "MLP on CLIP image embeddings, like the LAION aesthetic predictor: 0 to 10, prompt ignored",
        True,
        False,
        ("shapes_aesthetic",),
        _shapes_aesthetic,
    ),
    "shapes_spm": RewardSpec(
        "timestep-conditioned CLIP, like SPO's step-aware preference model: exp(logit_scale) * cosine",
        True,
        True,
        ("shapes_spm", "tokenizer"),
        _shapes_spm,
    ),
    "jpeg_compressibility": RewardSpec("minus the kilobytes of the picture as JPEG", False, False, (), _jpeg),
    "jpeg_incompressibility": RewardSpec("kilobytes of the picture as JPEG", False, False, (), _jpeg),
}


def spec(name: str) -> RewardSpec:
    """Facts of a reward.

    Raises:
        UnknownReward: for another name; the message holds the nearest ones.
    """
    if name in REWARDS:
        return REWARDS[name]
    near = difflib.get_close_matches(name, REWARDS, n=3, cutoff=0.4) or sorted(REWARDS)
    raise UnknownReward(f"unknown reward {name!r}; did you mean {', '.join(near)}?")


def missing_weights(name: str, folder: Path = EMBEDDED) -> list[Path]:
    """Folders that a reward needs and that are not there; empty if all is well."""
    return [folder / part for part in spec(name).weights if not (folder / part).is_dir()]


def load(
    name: str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    folder: Path = EMBEDDED,
) -> Reward:
    """Load a reward.

    Args:
        name: a key of ``REWARDS``.
        device: where it runs.
        dtype: data type of its towers, float32 by default.
        folder: where weights are.

    Raises:
        UnknownReward: for another name.
        MissingWeights: if a file is not there.
        WrongWeights: if a file holds something else.
    """
    import torch

    found = spec(name)
    if gone := missing_weights(name, folder):
        raise MissingWeights(f"reward {name} needs {', '.join(map(str, gone))}")
    return found.loader(name, folder, device, dtype or torch.float32)
