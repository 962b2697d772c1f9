"""Stage ``mend``: one step of the student is taught what its further steps would have mended.

Where the exact checker finds one step's picture wrong, the student goes on from it in its later steps, several times.  Of the pictures
that are right then, the one nearest to the wrong one is what the same noise should have given: a choice between the two
places where one object was half drawn, say.  All captions are of the train split.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTokenizer

from align.shapes.checker import check_picture
from align.shapes.grammar import Caption, captions
from scripts.shapes_training.denoiser import CPU, Denoiser, words
from scripts.shapes_training.loop import Budget, Recipe, train
from scripts.shapes_training.spoil import to_uint8
from scripts.shapes_training.turbo import TIMES, Levels

WRONG, RIGHT, LATER = 20, 3, 4
"""Rows of a batch: wrong pictures to mend, right ones that stay, latents of later steps, where nothing is to change."""
EVERY, NEW, TRIES = 3, 12, 3
"""Steps between looks at new noises, how many these are, how many ways on are tried of a wrong one."""
KEPT, FIRST = 6000, 60
"""Pairs that are kept of each kind, the oldest leave first; looks before training begins."""
HOPELESS = 3
"""So many looks without a picture that is right, and there is nothing to go on with."""
SMALL, SINGLE, KINDS = 0.35, 0.4, (0.45, 0.4, 0.15)
"""Shares of captions that ask for one small object, and for one of any size; shares of one, two and three kinds among the others."""
SOFT = 0.03
RATE = 3e-4
BLOCKS = ("down_blocks", "mid_block", "up_blocks")
"""Whose weights Muon moves."""


def asked(seed: int) -> Iterator[Caption]:
    """Captions of the train split, most of them of one object."""
    rng = np.random.default_rng(seed)
    single = (c for c in captions("train", seed, 1) if c.n_objects == 1)
    small = (c for c in captions("train", seed + 1, 1) if c.n_objects == 1 and c.phrases[0].size == "small")
    streams = (small, single, captions("train", seed + 2, KINDS))
    while True:
        yield next(streams[rng.choice(3, p=(SMALL, SINGLE, 1 - SMALL - SINGLE))])


def nearest(made: Tensor, others: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Of each row's ``others`` that are right the one nearest to what was ``made``.

    Args:
        made: (n, c, h, w).
        others: (k, n, c, h, w).
        right: (k, n) bool.

    Returns:
        (n, c, h, w), and (n,) bool: whether there is one.
    """
    distance = (others - made).square().mean(dim=(2, 3, 4)).masked_fill(~right, torch.inf)
    return others[distance.argmin(dim=0), torch.arange(len(made))], right.any(dim=0)


class Pairs:
    """What one step should make of noises: the last ``KEPT`` of them."""

    def __init__(self) -> None:
        self.rows: list[tuple[Tensor, Tensor, Tensor]] = []
        self.count = 0

    def add(self, noise: Tensor, clean: Tensor, states: Tensor) -> None:
        """Rows (n, ...) of noise, clean latents and captions' states."""
        for row in zip(noise, clean, states.half(), strict=True):
            if len(self.rows) < KEPT:
                self.rows.append(row)
            else:
                self.rows[self.count % KEPT] = row
            self.count += 1

    def draw(self, rng: np.random.Generator, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """(number, ...) of each."""
        chosen = [self.rows[k] for k in rng.integers(len(self.rows), size=number)]
        noise, clean, states = (torch.stack(column) for column in zip(*chosen, strict=True))
        return noise, clean, states.float()


def run(
    student: UNet2DConditionModel,
    shape: tuple[int, ...],
    decode: Callable[[Tensor], Tensor],
    tokenizer: CLIPTokenizer,
    denoiser: Denoiser,
    budget: Budget,
    folder: Path,
    seed: int,
    device: torch.device = CPU,
) -> UNet2DConditionModel:
    """Go on with a student for latents of a ``shape`` and return the averaged one; itself, if it draws nothing right.

    ``decode`` makes pictures (n, 3, H, W) in [0, 1] of latents; the other arguments as ``turbo.run``.
    """
    torch.manual_seed(seed)
    first = copy.deepcopy(student).to(device).eval().requires_grad_(False)
    student = copy.deepcopy(student).to(device).requires_grad_(True)
    reader, levels = denoiser.text_encoder.to(device).eval().requires_grad_(False), Levels(device)
    texts, wrong, right, turn = asked(seed + 500), Pairs(), Pairs(), 0

    def at(t: int, number: int) -> Tensor:
        return torch.full((number,), t, device=device)

    def judged(clean: Tensor, asked_for: list[Caption]) -> Tensor:
        pictures = to_uint8(decode(clean))
        verdicts = [check_picture(picture, c).all for picture, c in zip(pictures, asked_for, strict=True)]
        return torch.tensor(verdicts, device=device)

    @torch.no_grad()
    def look() -> None:
        """New noises: what one step makes of them, and what would have been right."""
        new = [next(texts) for _ in range(NEW)]
        states = reader(words(new, tokenizer).ids.to(device))[0]
        noise = torch.randn(NEW, *shape, device=device)
        made = levels.clean(student, noise, at(TIMES[0], NEW), states)
        good = judged(made, new)
        right.add(noise[good], made[good], states[good])
        bad = (~good).nonzero()[:, 0]
        if not len(bad):
            return
        ways, theirs = made[bad].repeat(TRIES, 1, 1, 1), states[bad].repeat(TRIES, 1, 1)
        for time in TIMES[1:]:
            t = at(time, len(ways))
            a, s = levels.of(t)
            ways = levels.clean(first, a * ways + s * torch.randn_like(ways), t, theirs)
        mended = judged(ways, [new[k] for k in bad.tolist()] * TRIES).view(TRIES, -1)
        target, found = nearest(made[bad], ways.view(TRIES, len(bad), *shape), mended)
        wrong.add(noise[bad][found], target[found], states[bad][found])

    def loss(rng: np.random.Generator, spent: float) -> tuple[Tensor, dict[str, float]]:
        nonlocal turn
        turn += 1
        if turn % EVERY == 0:
            look()
        rows = [pairs.draw(rng, number) for pairs, number in ((wrong, WRONG), (right, RIGHT), (right, LATER))]
        noise, clean, states = (torch.cat(column) for column in zip(*rows, strict=True))
        later = torch.tensor(TIMES[1:], device=device)[
            torch.from_numpy(rng.integers(len(TIMES) - 1, size=LATER))
        ]
        a, s = levels.of(later)
        z = torch.cat([noise[:-LATER], a * clean[-LATER:] + s * noise[-LATER:]])
        t = torch.cat([at(TIMES[0], WRONG + RIGHT), later])
        with torch.no_grad():
            target = torch.cat([clean[:-LATER], levels.clean(first, z[-LATER:], later, states[-LATER:])])
        distance = (levels.clean(student, z, t, states) - target).square().mean(dim=(1, 2, 3))
        # A distance rather than its square: of two right pictures the nearer one, not a blur between them.
        off = (distance[:-LATER] + SOFT**2).sqrt() - SOFT
        figures = {
            "wrong": off[:WRONG].mean(),
            "right": off[WRONG:].mean(),
            "later": distance[-LATER:].mean(),
        }
        total = off.mean() + distance[-LATER:].mean()
        return total, {name: float(value.detach()) for name, value in figures.items()}

    for count in range(FIRST):
        if count >= HOPELESS and not (wrong.rows and right.rows):
            print("[mend] nothing that the student draws is right: it is left as it is", flush=True)
            return first
        look()
    recipe = Recipe(learning_rate=RATE, budget=budget, average=0.997, warmup_steps=100, muon=BLOCKS)
    averaged = train("mend", student, loss, recipe, folder, seed)
    assert isinstance(averaged, UNet2DConditionModel)
    return averaged
