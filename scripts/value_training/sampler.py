"""The pre-trained sampler of the shapes world, and where the training's files go."""

from __future__ import annotations

from pathlib import Path

import torch

from align.backbones.registry import load_folder
from align.backbones.unet import UNetBackbone
from align.checkpoints.reference import EMBEDDED
from align.processes.base import Process
from align.processes.ddim import ddim
from align.rewards.base import Reward
from align.rewards.registry import REWARDS, load
from scripts.value_training.paths import Paths, collect, shapes_prompts

STEPS, GUIDANCE = 25, 4.0
"""Of the shapes world's default sampler; eta is 1."""
REWARD_NAMES = tuple(name for name, spec in REWARDS.items() if name.startswith("shapes_") and spec.weights)
TRAIN, TEST = ("train", 4, 41, 31), ("test", 8, 43, 33)
"""Split, pictures of a prompt, seed of the prompts, seed of the noise."""


def shapes_sampler(device: torch.device) -> tuple[UNetBackbone, Process, list[Reward]]:
    """Backbone, ancestral process and all rewards of the shapes world."""
    backbone = load_folder(EMBEDDED["shapes"], device)
    return (
        backbone,
        ddim(backbone.scheduler_config, STEPS, 1.0),
        [load(name, device) for name in REWARD_NAMES],
    )


def shapes_paths(
    which: tuple[str, int, int, int], number: int, folder: Path, device: torch.device
) -> tuple[UNetBackbone, Process, list[Reward], Paths]:
    """The sampler, and its paths for ``number`` prompts, which are collected if they are not in ``folder`` yet."""
    split, samples, prompt_seed, noise_seed = which
    backbone, process, rewards = shapes_sampler(device)
    prompts = shapes_prompts(split, number, prompt_seed)  # type: ignore[arg-type]
    files = collect(prompts, samples, backbone, process, GUIDANCE, rewards, noise_seed, folder, split)
    return backbone, process, rewards, Paths.read(files)
