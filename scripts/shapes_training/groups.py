"""Groups of four pictures for two captions, with utilities: what the reward models learn preferences from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from align.shapes.checker import judge
from align.shapes.render import PICTURE
from align.shapes.utility import total
from scripts.shapes_training.edits import Edits, false_caption
from scripts.shapes_training.judged import Judged
from scripts.shapes_training.shown import describe, moved, recoloured, recolouring, renamed, seen_in
from scripts.shapes_training.spoil import STEPS, corrupt, foresee, to_float

GROUP = 4
"""Pictures in a group."""


@dataclass
class Pools:
    """What preferences are learned from: rendered pairs, spoiled pictures, generated ones."""

    edits: Edits
    spoiled: Judged
    generated: Judged


@dataclass
class Batch:
    """``n`` groups: pictures (n, 4, 3, 64, 64), n texts of 2, utilities (n, 2, 4), timesteps (n,)."""

    pictures: Tensor
    texts: list[list[str]]
    utilities: Tensor
    steps: Tensor


def from_edits(data: Edits, index: np.ndarray, rng: np.random.Generator) -> Batch:
    """Both sides of a pair, each clean and mildly spoiled; utilities follow from how they were made."""
    sides = to_float(data.pictures[index].reshape(-1, PICTURE, PICTURE, 3)).view(-1, 2, 3, PICTURE, PICTURE)
    worse, levels = corrupt(sides.flatten(0, 1), rng, share=1.0, strength=0.6)
    pictures = torch.cat([sides, worse.view(sides.shape)], dim=1)
    quality = torch.cat([torch.zeros(len(index), 2), -levels.sum(1).view(-1, 2)], dim=1)
    # A wrong fact costs about a fifth of the content.
    right, wrong = total(1.0, 0.0), total(0.8, 0.0)
    content = torch.tensor([[right, wrong, right, wrong], [wrong, right, wrong, right]])
    steps = torch.zeros(len(index), dtype=torch.int64)
    return Batch(pictures, data.captions[index].tolist(), content + quality[:, None], steps)


def from_judged(data: Judged, index: np.ndarray, rng: np.random.Generator, *, early: bool = False) -> Batch:
    """Four pictures of each group, or with ``early`` their one-step predictions at one timestep.

    The four change colours together, and each moves to a place of its own, so that few pictures teach a lot.
    The second caption describes one of the four, or is a mistake away from that, so that captions are compared as
    well as pictures, and no caption belongs to a picture.
    """
    m = data.pictures.shape[1]
    chosen = np.argsort(rng.random((len(index), m)), axis=1)[:, :GROUP]
    rows = index[:, None]
    pictures = data.pictures[rows, chosen]
    steps = np.zeros(len(index), np.int64)
    if early and data.predictions is not None and data.timesteps is not None:
        at = rng.integers(data.timesteps.shape[1], size=len(index))
        pictures = data.predictions[rows, chosen, at[:, None]]
        steps = data.timesteps[index, at]
    utilities = np.zeros((len(index), 2, GROUP), np.float32)
    texts = []
    for k, (group, members) in enumerate(zip(index, chosen, strict=True)):
        prompt, read = data.prompts[group], [data.seen[group][member] for member in members]
        kinds = [(phrase.colour, phrase.shape) for phrase in prompt.phrases]
        mapping = recolouring([*kinds, *((t.colour, t.shape) for seen in read for t in seen.things)], rng)
        for j, seen in enumerate(read):
            pictures[k, j] = moved(recoloured(pictures[k, j], seen, mapping), seen, rng)[0]
        read = [seen_in(seen, mapping) for seen in read]
        first = second = renamed(prompt, mapping)
        if (found := describe(read[0], rng)) is not None:
            second = found[0] if rng.random() < 0.5 else false_caption(*found, rng, "train")
        texts.append([first.text(), second.text()])
        for c, caption in enumerate((first, second)):
            for j, seen in enumerate(read):
                drawing = float(data.drawings[group, members[j]])
                utilities[k, c, j] = total(judge(seen, caption).score, drawing)
    return Batch(
        to_float(pictures.reshape(-1, PICTURE, PICTURE, 3)).view(*chosen.shape, 3, PICTURE, PICTURE),
        texts,
        torch.from_numpy(utilities),
        torch.from_numpy(steps),
    )


def draw(pools: Pools, rng: np.random.Generator, n: int, *, early: bool = False) -> Batch:
    """``n`` groups: an eighth each of rendered edits and spoiled pictures, the rest generated.

    A faint grain is laid over all pictures of a group alike, so that scores are smooth in the picture.

    Args:
        pools: where from.
        rng: source of randomness.
        n: how many groups.
        early: one-step predictions with their timesteps instead of finished pictures (a quarter stay
            finished).
    """
    shares = np.array([0.125, 0.125, 0.75])
    bounds = np.floor(n * np.cumsum([0.0, *shares]) + rng.random()).clip(0, n).astype(int)
    bounds[0], bounds[-1] = 0, n
    drawn, bad, made = np.diff(bounds)
    finished = int(rng.binomial(made, 0.25)) if early else made
    parts = [
        from_edits(pools.edits, rng.integers(len(pools.edits), size=drawn), rng),
        from_judged(pools.spoiled, rng.integers(len(pools.spoiled), size=bad), rng),
        from_judged(pools.generated, rng.integers(len(pools.generated), size=finished), rng),
        from_judged(
            pools.generated, rng.integers(len(pools.generated), size=made - finished), rng, early=True
        ),
    ]
    if early:
        for part in parts[:2]:
            part.steps = torch.from_numpy(rng.integers(0, STEPS, size=len(part.steps)))
            if len(part.steps):
                part.pictures = foresee(part.pictures, part.steps, rng)
    pictures = torch.cat([part.pictures for part in parts])
    seed = torch.Generator().manual_seed(int(rng.integers(2**62)))
    grain = 0.05 * torch.rand(len(pictures), 1, 1, 1, 1, generator=seed).pow(3)
    pictures = pictures + grain * torch.randn(pictures.shape, generator=seed)
    return Batch(
        pictures.clamp(0, 1),
        [texts for part in parts for texts in part.texts],
        torch.cat([part.utilities for part in parts]),
        torch.cat([part.steps for part in parts]),
    )
