"""Paths of plain ancestral sampling: what a noisy state was, what was predicted of it, and which reward came of it.

Made in portions, each written by rename, so a killed collection goes on where it was.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from align.backbones.base import Backbone, Conditioning
from align.backbones.guider import Guider
from align.processes.base import Process
from align.rewards.base import Reward
from align.sampling.batching import Calls, one_call
from align.sampling.judge import Judge
from align.sampling.ledger import Ledger
from align.sampling.loop import start
from align.sampling.noise import Draws, NoiseStream
from align.sampling.predict import Predict
from align.sampling.state import Pictures
from align.shapes.grammar import Split, captions

TOGETHER = 64
"""Pictures of a portion, and rows of a network call, unless told otherwise."""


@dataclass(frozen=True)
class Paths:
    """n paths of T steps for some prompts.

    Attributes:
        prompts: n texts, the samples of one prompt side by side.
        t: (T,) int64 training timesteps, falling.
        z: (n, T, C, h, w) float16 latents that came in at each step.
        x0: (n, T, C, h, w) float16 predictions of clean latents there.
        final: (n, C, h, w) float16 latents at the end.
        rewards: (n, R) float32 of the finished pictures.
    """

    prompts: np.ndarray
    t: np.ndarray
    z: np.ndarray
    x0: np.ndarray
    final: np.ndarray
    rewards: np.ndarray

    def __len__(self) -> int:
        return len(self.prompts)

    @staticmethod
    def join(parts: Sequence[Paths]) -> Paths:
        """Several collections of the same steps as one."""
        joined = {f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Paths)}
        return Paths(**joined | {"t": parts[0].t})

    @staticmethod
    def read(files: Sequence[Path]) -> Paths:
        """From files of ``collect``."""
        parts = []
        for path in files:
            with np.load(path, allow_pickle=False) as store:
                parts.append(Paths(**{f.name: store[f.name] for f in fields(Paths)}))
        return Paths.join(parts)


def shapes_prompts(split: Split, number: int, seed: int) -> list[str]:
    """``number`` different captions of the shapes grammar with one to three kinds of objects."""
    found = dict.fromkeys(caption.text() for caption in islice(captions(split, seed), 3 * number))
    return list(found)[:number]


def collect(
    prompts: Sequence[str],
    samples: int,
    backbone: Backbone,
    process: Process,
    guidance_scale: float,
    rewards: Sequence[Reward],
    seed: int,
    folder: Path,
    name: str,
    together: int = TOGETHER,
) -> list[Path]:
    """The paths of all prompts, ``samples`` of each; portions that are there are not made again.

    Args:
        prompts: different texts.
        samples: pictures of each.
        backbone, process, guidance_scale: the pre-trained sampler.
        rewards: R judges of finished pictures.
        seed: of the noise.
        folder: where the files go.
        name: start of their names.
        together: pictures of a portion.

    Returns:
        The files, in order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    each = max(1, together // samples)
    files = []
    for first in range(0, len(prompts), each):
        path = folder / f"{name}-{seed}-{first:05}.npz"
        files.append(path)
        if path.exists():
            continue
        found = sample(
            prompts[first : first + each], samples, backbone, process, guidance_scale, rewards, seed
        )
        temporary = path.with_suffix(".tmp.npz")
        np.savez(temporary, **{f.name: getattr(found, f.name) for f in fields(Paths)})
        os.replace(temporary, path)
        print(f"[{name}] {min(first + each, len(prompts))} of {len(prompts)} prompts", flush=True)
    return files


@torch.no_grad()
def sample(
    prompts: Sequence[str],
    samples: int,
    backbone: Backbone,
    process: Process,
    guidance_scale: float,
    rewards: Sequence[Reward],
    seed: int,
) -> Paths:
    """Plain sampling of some prompts, everything kept; see ``collect``."""
    texts = [prompt for prompt in prompts for _ in range(samples)]
    predict = Predict(backbone, Guider(guidance_scale, embedded=guidance_scale), Calls(len(texts)))
    pictures = Pictures(
        prompts=texts,
        conditioning=Conditioning.of([backbone.encode(text, "") for text in texts]),
        pair_weights=torch.zeros(len(texts), 1, 1),
        has_pairs=torch.zeros(len(texts), dtype=torch.bool),
    )
    own = [NoiseStream(seed, text, k % samples) for k, text in enumerate(texts)]
    state = start(
        lambda picture, _: own[picture],
        len(texts),
        1,
        backbone.latent_shape(),
        pictures.conditioning.prompt.device,
    )
    seen, predicted = [], []
    for step in process.steps:
        estimate = predict(state, pictures, step, Ledger(len(texts)), one_call(len(texts)))
        seen.append(half(state.z))
        predicted.append(half(estimate.x0))
        noise = Draws.of(lambda picture, _: own[picture], state, step.index, 0).normal("step")
        state = replace(state, z=process.kernel(estimate.x0, estimate.eps, step).sample(noise))
    judges = [Judge(backbone, Calls(len(texts)), reward) for reward in rewards]
    rows = range(len(texts))
    values = [judge.score(judge.decode(state.z, rows), texts, rows).cpu() for judge in judges]
    return Paths(
        prompts=np.array(texts),
        t=np.array([int(step.time) for step in process.steps]),
        z=np.stack(seen, axis=1),
        x0=np.stack(predicted, axis=1),
        final=half(state.z),
        rewards=torch.stack(values, dim=1).numpy(),
    )


def half(latents: Tensor) -> np.ndarray:
    """Latents as float16 arrays."""
    return latents.cpu().numpy().astype(np.float16)
