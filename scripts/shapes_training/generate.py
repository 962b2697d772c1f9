"""Stage ``generate``: pictures of the trained model, for the reward models to learn from.

Several seeds for each caption, with some of the one-step predictions that the step-aware model is about.
"""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from align.backbones.base import Conditioning
from align.backbones.guider import Guider
from align.backbones.registry import load_folder
from align.backbones.unet import UNetBackbone
from align.processes.ddim import ddim
from align.sampling.batching import Calls, one_call
from align.sampling.ledger import Ledger
from align.sampling.loop import start
from align.sampling.noise import Draws, NoiseStream
from align.sampling.predict import Predict
from align.sampling.state import Pictures
from align.shapes.grammar import Caption, Split, captions
from scripts.shapes_training.spoil import to_uint8

STEPS, LOOKS = 25, (3, 6, 9, 12, 15, 18, 21)
"""Steps of held-out pictures, and those of them whose one-step predictions are kept."""
FEW_STEPS = 12
"""Of training pictures: cheaper, with a few more mistakes to learn from."""
WAYS = ((1.0, (7, 8, 10)), (0.0, (4, 6, 8)), (0.0, (5, 7, 9)))
"""Eta of the sampler and kept looks, for one portion of training pictures after the other.  With ancestral noise (eta 1) the
noise still to come decides what is there until past the middle; without, the middle tells already.  Before, nothing does:
a model that is trained on such looks learns their noise by heart."""
GUIDANCE = 4.0
PORTION = 64
"""Captions in a file; what a killed stage loses at most."""
SEEDS = 4
"""Pictures of a caption."""


def practice_files(folder: Path) -> list[Path]:
    """The training pictures that there are."""
    return sorted(folder.glob("generated-train-*.npz"))


def run(number: int, seed: int, weights: Path, folder: Path, device: torch.device) -> None:
    """Training pictures for ``number`` captions in portions, of which those that are there are not made again."""
    backbone = load_folder(weights, device)
    some = list(islice(captions("train", seed), number))
    for k in range(0, number, PORTION):
        path = folder / f"generated-train-{seed}-{k:05}.npz"
        eta, keep = WAYS[k // PORTION % len(WAYS)]
        make(some[k : k + PORTION], seed, backbone, path, steps=FEW_STEPS, eta=eta, keep=keep)


def held_out(split: Split, number: int, seed: int, backbone: UNetBackbone, path: Path, eta: float) -> Path:
    """Pictures as a user gets them for ``number`` held-out captions."""
    make(list(islice(captions(split, seed), number)), seed, backbone, path, steps=STEPS, eta=eta, keep=LOOKS)
    return path


@torch.no_grad()
def make(
    wanted: list[Caption],
    seed: int,
    backbone: UNetBackbone,
    path: Path,
    *,
    steps: int,
    eta: float,
    keep: tuple[int, ...],
    batch: int = 32,
) -> None:
    """Generate ``SEEDS`` pictures for each caption, unless ``path`` is there.

    Args:
        wanted: n captions.
        seed: of the noise.
        backbone: the trained model.
        path: npz file with ``pictures`` (4 n, 64, 64, 3) uint8, ``captions`` (4 n,), ``x0_t`` (4 n, K, 64, 64, 3) uint8
            decoded one-step predictions, ``timesteps`` (K,).
        steps: of the sampler.
        eta: share of ancestral noise.
        keep: indices of the K steps whose one-step predictions are kept.
        batch: pictures made together.
    """
    if path.exists():
        return
    process = ddim(backbone.scheduler_config, steps, eta)
    predict = Predict(backbone, Guider(GUIDANCE), Calls(batch))
    texts = [caption.text() for caption in wanted for _ in range(SEEDS)]
    made: list[np.ndarray] = []
    looks: list[np.ndarray] = []
    for begin in range(0, len(texts), batch):
        some = texts[begin : begin + batch]
        read = [backbone.encode(text, "") for text in some]
        pictures = Pictures(
            prompts=some,
            conditioning=Conditioning.of(read),
            pair_weights=torch.zeros(len(some), 1, 1),
            has_pairs=torch.zeros(len(some), dtype=torch.bool),
        )
        own = [NoiseStream(seed, text, (begin + k) % SEEDS) for k, text in enumerate(some)]
        streams = lambda picture, _, own=own: own[picture]  # noqa: E731
        ledger = Ledger(len(some))
        state = start(streams, len(some), 1, backbone.latent_shape(), backbone.device)
        rows: list[np.ndarray] = []
        for step in process.steps:
            estimate = predict(state, pictures, step, ledger, one_call(batch))
            if step.index in keep:
                rows.append(to_uint8(backbone.decode(estimate.x0)))
            noise = Draws.of(streams, state, step.index, 0).normal("step")
            state = replace(state, z=process.kernel(estimate.x0, estimate.eps, step).sample(noise))
        made.append(to_uint8(backbone.decode(state.z)))
        looks.append(np.stack(rows, axis=1))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp.npz")
    np.savez(
        temporary,
        pictures=np.concatenate(made),
        captions=np.array(texts),
        x0_t=np.concatenate(looks),
        timesteps=np.array([int(process.steps[k].time) for k in keep]),
    )
    os.replace(temporary, path)
