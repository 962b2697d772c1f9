"""Stage ``generate``: pictures of the trained model, for the reward models to learn from.

Several seeds for each caption, with the one-step predictions that the step-aware model is about.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from align.backbones.base import Conditioning
from align.backbones.unet import UNetBackbone
from align.processes.ddim import DDIM
from align.sampling.evaluate import Evaluator, Pictures
from align.sampling.ledger import Ledger
from align.sampling.loop import draw, start
from align.sampling.noise import NoiseStream
from align.shapes.grammar import Split, captions

STEPS = 25
GUIDANCE = 4.0
LOOKS = (0, 3, 6, 9, 12, 15, 18, 21)
"""Steps whose one-step predictions are kept."""


def to_bytes(pictures: Tensor) -> np.ndarray:
    """(P, 3, H, W) in [0, 1] to (P, H, W, 3) uint8."""
    return (pictures.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def run(
    split: Split, number: int, seeds: int, seed: int, weights: Path, folder: Path, device: torch.device
) -> Path:
    """Generate ``seeds`` pictures for each of ``number`` captions; kept as one npz file.

    Arrays: ``pictures`` (n, 64, 64, 3) uint8, ``captions`` (n,), ``seeds`` (n,), ``x0_t`` (n, K, 64, 64, 3)
    uint8 decoded one-step predictions, ``timesteps`` (K,).
    """
    path = folder / f"generated-{split}-{number}x{seeds}-{seed}.npz"
    if path.exists():
        return path
    backbone = UNetBackbone(weights, device)
    process = DDIM(backbone.scheduler_config, STEPS, 1.0)
    texts = [c.text() for c in islice(captions(split, seed), number) for _ in range(seeds)]
    which = [k for _ in range(number) for k in range(seeds)]
    made: list[np.ndarray] = []
    looks: list[np.ndarray] = []
    batch = 32
    for begin in range(0, len(texts), batch):
        some, numbers = texts[begin : begin + batch], which[begin : begin + batch]
        read = [backbone.encode(text, "") for text in some]
        pictures = Pictures(
            prompts=some,
            conditioning=Conditioning(
                torch.stack([r.prompt for r in read]), torch.stack([r.negative for r in read])
            ),
            pair_weights=torch.zeros(len(some), 1, 1),
            has_pairs=torch.zeros(len(some), dtype=torch.bool),
        )
        streams = [NoiseStream(seed, text, k) for text, k in zip(some, numbers, strict=True)]
        evaluate = Evaluator(backbone, GUIDANCE, len(some))
        ledger = Ledger(len(some))
        with torch.no_grad():
            state = start(lambda p, _: streams[p], len(some), 1, backbone.latent_shape(), device)  # noqa: B023
            z = state.z
            rows: list[np.ndarray] = []
            for step in process.steps:
                estimate = evaluate(
                    type(state)(z, state.picture, state.log_weights, z), pictures, step, ledger
                )
                if step.index in LOOKS:
                    rows.append(to_bytes(backbone.decode(estimate.x0)))
                noise = draw(lambda p, _: streams[p], state, "step", step.index, 0)  # noqa: B023
                z = process.kernel(estimate.x0, estimate.eps, step).sample(noise)
            made.append(to_bytes(backbone.decode(z)))
            looks.append(np.stack(rows, axis=1))
    np.savez(
        path,
        pictures=np.concatenate(made),
        captions=np.array(texts),
        seeds=np.array(which),
        x0_t=np.concatenate(looks),
        timesteps=np.array([process.steps[k].t for k in LOOKS]),
    )
    return path
