"""Stage ``turbo``: a student of the denoiser that draws in 1 to 4 steps, without a negative half.

Distribution matching without an adversary (DMD, arXiv 2311.18828; rows of its own chain as in DMD2, 2405.14867).  The student's clean
latents x are noised to a random level.  There the guided denoiser says where the data are, and a second network, taught all the while
on the student's own x, where the student's are; x moves along their difference.  No pictures are needed, captions alone are.

The first step takes pure noise for latents of a level where the denoiser already sees shapes in it: from there it is trained to one
step in a fraction of the time that the noisiest level takes, where its prediction is a blur that hardly depends on the noise.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTokenizer

from align.shapes.grammar import captions
from scripts.shapes_training.denoiser import CPU, Denoiser, scheduler, words
from scripts.shapes_training.loop import Budget, Recipe, train
from scripts.shapes_training.tokenizer import MAX_LENGTH

TIMES = (599, 449, 299, 149)
"""Timesteps of a chain of four steps; one step is the first."""
SCALE = 3.0
"""Of the denoiser's classifier-free guidance, which the student learns to do without."""
BATCH, FRESH = 16, 11
"""Rows of a batch, and how many of them begin as noise; the others go on from the last batch, as sampling does."""
EVERY = 2
"""Steps of the second network for one of the student."""
LEVELS = (20, 800)
"""Timesteps at which the two distributions are compared."""
RATE = 1.5e-4
KINDS = (0.4, 0.4, 0.2)
"""Shares of captions with one, two and three kinds of objects."""


class Pair(nn.Module):
    """The student, and the network that says where its latents are, both beginning as the denoiser."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.student, self.follower = copy.deepcopy(unet), copy.deepcopy(unet)


class Rows(NamedTuple):
    """Clean latents (b, c, h, w) that the student made, captions' states (b, tokens, width), and at which of ``TIMES`` (b,)."""

    clean: Tensor
    states: Tensor
    place: Tensor


class Levels:
    """The process: signal and noise at whole timesteps."""

    def __init__(self, device: torch.device) -> None:
        abar = scheduler().alphas_cumprod.to(device)
        self.a, self.s = abar.sqrt(), (1 - abar).sqrt()

    def of(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Shares (b, 1, 1, 1) at timesteps (b,)."""
        return self.a[t].view(-1, 1, 1, 1), self.s[t].view(-1, 1, 1, 1)

    def clean(self, unet: UNet2DConditionModel, z: Tensor, t: Tensor, states: Tensor) -> Tensor:
        """A network's prediction (b, c, h, w) of clean latents."""
        a, s = self.of(t)
        v: Tensor = unet(z.contiguous(memory_format=torch.channels_last), t, states, return_dict=False)[0]
        return a * z - s * v


class Chain:
    """Batches of rows: fresh ones, and ones of the last batch a place further."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        number: int,
        states: Callable[[np.ndarray], Tensor],
        device: torch.device,
    ):
        self.shape, self.number, self.states, self.device = shape, number, states, device
        self.last: Rows | None = None

    def _fresh(self, rng: np.random.Generator, number: int) -> Rows:
        states = self.states(rng.integers(self.number, size=number))
        place = torch.zeros(number, dtype=torch.long, device=self.device)
        return Rows(torch.zeros(number, *self.shape, device=self.device), states, place)

    def draw(self, rng: np.random.Generator) -> Rows:
        """The next batch; of fresh rows ``clean`` is 0."""
        if self.last is None:
            return self._fresh(rng, BATCH)
        going = (self.last.place < len(TIMES) - 1).nonzero()[:, 0].cpu().numpy()
        chosen = torch.from_numpy(rng.permutation(going)[: BATCH - FRESH]).to(self.device)
        old = Rows(*(one[chosen] for one in self.last))
        fresh = self._fresh(rng, BATCH - len(chosen))
        return Rows(*(torch.cat(two) for two in zip(fresh, old._replace(place=old.place + 1), strict=True)))


def run(
    shape: tuple[int, int, int],
    tokenizer: CLIPTokenizer,
    denoiser: Denoiser,
    number: int,
    budget: Budget,
    folder: Path,
    seed: int,
    device: torch.device = CPU,
    on_save: Callable[[nn.Module], None] | None = None,
) -> UNet2DConditionModel:
    """Train for latents of a ``shape`` on a ``number`` of captions, and return the averaged student; the rest as ``denoiser.run``."""
    torch.manual_seed(seed)
    denoiser = denoiser.to(device).eval().requires_grad_(False)
    teacher, reader = denoiser.unet, denoiser.text_encoder
    pair = Pair(teacher).requires_grad_(True)
    levels, times = Levels(device), torch.tensor(TIMES, device=device)
    ids = words(list(islice(captions("train", seed + 31, KINDS), number)), tokenizer).ids

    @torch.no_grad()
    def states(index: np.ndarray) -> Tensor:
        found: Tensor = reader(ids[index].to(device))[0]
        return found

    empty = tokenizer([""], padding="max_length", max_length=MAX_LENGTH)["input_ids"]
    with torch.no_grad():
        nothing = reader(torch.tensor(empty).to(device))[0]
    chain, turn = Chain(shape, number, states, device), 0

    def loss(rng: np.random.Generator, spent: float) -> tuple[Tensor, dict[str, float]]:
        nonlocal turn
        turn += 1
        rows = chain.draw(rng)
        t = times[rows.place]
        a, s = levels.of(t)
        noise = torch.randn_like(rows.clean)
        z = torch.where((rows.place == 0).view(-1, 1, 1, 1), noise, a * rows.clean + s * noise)
        learns = turn % EVERY == 0
        with torch.set_grad_enabled(learns):
            x = levels.clean(pair.student, z, t, rows.states)
        made = x.detach()
        chain.last = rows._replace(clean=made)
        level = torch.from_numpy(rng.integers(*LEVELS, size=len(x))).to(device)
        a, s = levels.of(level)
        noise = torch.randn_like(made)
        z = a * made + s * noise
        found = levels.clean(pair.follower, z, level, rows.states)
        # As an error of v, which weighs all levels alike.
        follows = ((found - made) / s).square().mean()
        figures = {"follows": float(follows.detach())}
        if not learns:
            return follows, figures
        with torch.no_grad():
            both = torch.cat([nothing.expand_as(rows.states), rows.states])
            other, own = levels.clean(teacher, torch.cat([z, z]), torch.cat([level, level]), both).chunk(2)
            theirs = other + SCALE * (own - other)
            size = (made - theirs).abs().mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-3)
            move = (theirs - found) / size
        matching = 0.5 * (x - (made + move)).square().mean()
        return follows + matching, {**figures, "move": float(move.square().mean())}

    recipe = Recipe(learning_rate=RATE, budget=budget, average=0.995, weight_decay=0.01, warmup_steps=100)
    averaged = train("turbo", pair, loss, recipe, folder, seed, on_save)
    assert isinstance(averaged, Pair)
    return averaged.student
