"""Pictures in pairs: what the reward models of the shapes world learn from.

Four kinds of pairs, all of training-split scenes only:

* **edits** (:class:`Edits`): a rendered scene and the same scene with one thing changed (a colour, a shape,
  two colours or two places exchanged, a count, the background, a size), each with the caption that is true of
  it;
* **spoiled** (:func:`spoiled`): both sides of such a pair blurred, noisy, speckled (:func:`corrupt`) or
  decoded from noisy or half-mixed latents, judged by the one definition of preference;
* **slips** (:func:`slips`): scenes with objects too many, missing, misplaced or mistaken, bent and decoded;
* **generated** (:func:`generated`): pictures of the diffusion model for one caption and several seeds,
  judged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from align.shapes.checker import segment
from align.shapes.grammar import (
    BACKGROUNDS,
    COLOURS,
    MAX_OBJECTS,
    SHAPES,
    Caption,
    Phrase,
    Split,
    caption_split,
    pair_split,
    parse,
)
from align.shapes.preferences import aesthetic, utility
from align.shapes.render import (
    PICTURE,
    RADIUS,
    NoRoom,
    Scene,
    Thing,
    _only_trained_arrangements,
    masks,
    render,
    sample_scene,
    scenes,
)

PATCHES = 8
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

Edit = Callable[[Caption, Scene, np.random.Generator], tuple[Caption, Scene | None] | None]


def _groups(caption: Caption) -> list[int]:
    """Phrase index of each object of a rendered scene."""
    return [k for k, phrase in enumerate(caption.phrases) for _ in range(phrase.count)]


def _with_phrase(caption: Caption, k: int, phrase: Phrase) -> Caption:
    phrases = list(caption.phrases)
    phrases[k] = phrase
    return replace(caption, phrases=tuple(phrases))


def _with_things(scene: Scene, caption: Caption) -> Scene:
    """The scene in the colours and shapes that the (edited) caption gives its objects, in order."""
    kinds = [caption.phrases[k] for k in _groups(caption)]
    things = [replace(t, colour=p.colour, shape=p.shape) for t, p in zip(scene.things, kinds, strict=True)]
    return replace(scene, things=tuple(things))


def recolour(caption: Caption, scene: Scene, rng: np.random.Generator) -> tuple[Caption, Scene | None]:
    """Another colour for one phrase."""
    k = int(rng.integers(len(caption.phrases)))
    other = [c for c in COLOURS if c != caption.phrases[k].colour]
    edited = _with_phrase(caption, k, replace(caption.phrases[k], colour=str(rng.choice(other))))
    return edited, _with_things(scene, edited)


def reshape(caption: Caption, scene: Scene, rng: np.random.Generator) -> tuple[Caption, Scene | None]:
    """Another shape for one phrase."""
    k = int(rng.integers(len(caption.phrases)))
    other = [s for s in SHAPES if s != caption.phrases[k].shape]
    edited = _with_phrase(caption, k, replace(caption.phrases[k], shape=str(rng.choice(other))))
    return edited, _with_things(scene, edited)


def swap_colours(
    caption: Caption, scene: Scene, rng: np.random.Generator
) -> tuple[Caption, Scene | None] | None:
    """Two phrases exchange their colours."""
    if len(caption.phrases) < 2:
        return None
    i, j = rng.choice(len(caption.phrases), 2, replace=False)
    first, second = caption.phrases[i], caption.phrases[j]
    if first.colour == second.colour or first.shape == second.shape:
        return None
    edited = _with_phrase(caption, i, replace(first, colour=second.colour))
    edited = _with_phrase(edited, j, replace(second, colour=first.colour))
    return edited, _with_things(scene, edited)


def swap_places(
    caption: Caption, scene: Scene, rng: np.random.Generator
) -> tuple[Caption, Scene | None] | None:
    """The two sides of a relation exchange their places, or the relation word is turned round."""
    if caption.relation not in OPPOSITE:
        return None
    edited = replace(caption, relation=OPPOSITE[caption.relation])
    if rng.random() < 0.5:  # The same fact in other words: arguments exchanged, the relation word kept.
        first, second = caption.phrases[:2]
        edited = replace(caption, phrases=(second, first, *caption.phrases[2:]))
    if caption.phrases[0].count != 1 or caption.phrases[1].count != 1:
        return edited, None
    a, b, *rest = scene.things

    def fits(t: Thing, o: Thing) -> bool:
        reach = 1.12 * t.radius + 1
        return reach <= min(o.x, o.y) and max(o.x, o.y) <= PICTURE - reach

    if not (fits(a, b) and fits(b, a)):
        return edited, None
    things = (replace(a, x=b.x, y=b.y), replace(b, x=a.x, y=a.y))
    if edited.phrases[0] != caption.phrases[0]:
        things = (things[1], things[0])
    return edited, replace(scene, things=(*things, *rest))


def recount(caption: Caption, scene: Scene, rng: np.random.Generator) -> tuple[Caption, Scene | None] | None:
    """One object less of a group, a phrase less, or (in words only) one object more."""
    k = int(rng.integers(len(caption.phrases)))
    phrase = caption.phrases[k]
    last = sum(p.count for p in caption.phrases[: k + 1]) - 1
    if phrase.count > 1:
        edited = _with_phrase(caption, k, replace(phrase, count=phrase.count - 1))
        return edited, replace(scene, things=scene.things[:last] + scene.things[last + 1 :])
    if caption.n_objects < MAX_OBJECTS and rng.random() < 0.5:
        return _with_phrase(caption, k, replace(phrase, count=phrase.count + 1)), None
    if len(caption.phrases) > 1 and k == len(caption.phrases) - 1:
        relation = caption.relation if k == 2 else None
        edited = replace(caption, phrases=caption.phrases[:-1], relation=relation)
        return edited, replace(scene, things=scene.things[:last])
    return None


def rebackground(
    caption: Caption, scene: Scene, rng: np.random.Generator
) -> tuple[Caption, Scene | None] | None:
    """Another background, where the caption names one."""
    if caption.background is None:
        return None
    other = str(rng.choice([b for b in BACKGROUNDS if b != caption.background]))
    return replace(caption, background=other), replace(scene, background=other)


def resize(caption: Caption, scene: Scene, rng: np.random.Generator) -> tuple[Caption, Scene | None] | None:
    """A small group becomes large in words, a large one small in the picture too."""
    named = [k for k, phrase in enumerate(caption.phrases) if phrase.size]
    if not named:
        return None
    k = int(rng.choice(named))
    edited = _with_phrase(
        caption,
        k,
        replace(caption.phrases[k], size="small" if caption.phrases[k].size == "large" else "large"),
    )
    if caption.phrases[k].size == "small":
        return edited, None
    things = [
        replace(t, radius=float(rng.uniform(*RADIUS["small"]))) if g == k else t
        for t, g in zip(scene.things, _groups(caption), strict=True)
    ]
    return edited, replace(scene, things=tuple(things))


EDITS: tuple[Edit, ...] = (
    recolour,
    reshape,
    swap_colours,
    swap_places,
    recount,
    rebackground,
    resize,
)
EDIT_SHARES = np.array([0.22, 0.22, 0.14, 0.22, 0.1, 0.06, 0.04])


def edit(
    caption: Caption, scene: Scene, rng: np.random.Generator, split: Split, *, words_only: bool = False
) -> tuple[Caption, Scene | None]:
    """One random edit that makes the caption false of the scene; both results stay in the split.

    Args:
        caption: a caption true of ``scene``.
        scene: the scene.
        rng: source of randomness.
        split: split of the caption.  Edits that would show or name anything of another split are drawn again,
            so that no held-out combination is ever learned as a mistake.
        words_only: whether an edited caption without an edited scene will do.

    Returns:
        The edited caption, and the scene of which it is true (``None`` if there is none).
    """
    for _ in range(200):
        found = EDITS[int(rng.choice(len(EDITS), p=EDIT_SHARES))](caption, scene, rng)
        if found is None or parse(found[0].text()) is None:
            continue
        if caption_split(found[0]) != split:
            continue
        if words_only:
            return found
        if found[1] is not None and (split != "train" or _only_trained_arrangements(list(found[1].things))):
            return found
    return rebackground_always(caption, scene)


def rebackground_always(caption: Caption, scene: Scene) -> tuple[Caption, Scene]:
    """The edit of last resort: name a background that is not there."""
    other = next(name for name in BACKGROUNDS if name != scene.background)
    return replace(caption, background=other), replace(scene, background=other)


# ---------------------------------------------------------------- rendered pairs


@dataclass
class Edits:
    """``n`` scenes, each as it is (side 0) and edited (side 1).

    Attributes:
        pictures: (n, 2, 64, 64, 3) uint8.
        captions: (n, 2) str, each true of its picture and false of the other.
        negatives: (n, 2) str, another caption false of each picture.
        things: (n, 2, 3, 5) float32: colour and shape index (-1 for none), centre x and y and half-extent in
            pixels.
        cells: (n, 2, 3, 64) uint8: share (0..255) of each object in each of the 8x8 patches.
        backgrounds: (n, 2) int64 index.
    """

    pictures: np.ndarray
    captions: np.ndarray
    negatives: np.ndarray
    things: np.ndarray
    cells: np.ndarray
    backgrounds: np.ndarray

    def __len__(self) -> int:
        return len(self.captions)


def edits(split: Split, number: int, seed: int, folder: Path) -> Edits:
    """``number`` rendered pairs of a split, made once (3 ms each) and kept in ``folder``."""
    path = folder / f"edits-{split}-{number}-{seed}.npz"
    if path.exists():
        with np.load(path, allow_pickle=False) as store:
            return Edits(**{name: store[name] for name in store.files})
    rng = np.random.default_rng([seed, 5])
    pictures = np.zeros((number, 2, PICTURE, PICTURE, 3), np.uint8)
    things = np.full((number, 2, MAX_OBJECTS, 5), -1, np.float32)
    cells = np.zeros((number, 2, MAX_OBJECTS, PATCHES * PATCHES), np.uint8)
    backgrounds = np.zeros((number, 2), np.int64)
    texts: list[list[str]] = []
    negatives: list[list[str]] = []
    for k, (caption, scene) in enumerate(islice(scenes(split, seed), number)):
        edited_caption, edited_scene = edit(caption, scene, rng, split)
        assert edited_scene is not None
        sides = [(caption, scene), (edited_caption, edited_scene)]
        texts.append([side[0].text() for side in sides])
        negatives.append([edit(*side, rng, split, words_only=True)[0].text() for side in sides])
        for side, (_, shown) in enumerate(sides):
            pictures[k, side] = render(shown)
            backgrounds[k, side] = list(BACKGROUNDS).index(shown.background)
            cells[k, side, : len(shown.things)] = np.round(
                255 * masks(shown, PATCHES).reshape(len(shown.things), -1)
            )
            for t, thing in enumerate(shown.things):
                things[k, side, t] = row(thing)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        "pictures": pictures,
        "captions": np.array(texts),
        "negatives": np.array(negatives),
        "things": things,
        "cells": cells,
        "backgrounds": backgrounds,
    }
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return Edits(**arrays)


def row(thing: Thing) -> tuple[float, ...]:
    """An object as numbers: colour and shape index, centre and half-extent in pixels."""
    return (list(COLOURS).index(thing.colour), SHAPES.index(thing.shape), thing.x, thing.y, thing.radius)


# ---------------------------------------------------------------- corruption

CORRUPTIONS = ("blur", "contrast", "noise", "specks")


def gaussian_blur(pictures: Tensor, sigma: Tensor) -> Tensor:
    """Blur (b, c, H, W) pictures, each by its own deviation (b,) in pixels (up to about 2.5)."""
    b, c, h, w = pictures.shape
    reach = max(1, int(np.ceil(2.5 * float(sigma.max()))))
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / sigma.clamp_min(0.05)[:, None]).square())
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(c, 0)
    flat = F.pad(pictures.reshape(1, b * c, h, w), (reach,) * 4, mode="replicate")
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=b * c)
    flat = F.conv2d(flat, kernel[:, None, None, :], groups=b * c)
    return flat.reshape(b, c, h, w)


def corrupt(
    pictures: Tensor, rng: np.random.Generator, share: float = 0.5, strength: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Spoil pictures as a poor generator would.

    Args:
        pictures: (b, 3, 64, 64) float32 in [0, 1].
        rng: source of randomness.
        share: probability of each kind of corruption in a picture is half of this; colour jitter and a faint
            grain are always there.
        strength: scale of the corruptions.

    Returns:
        The pictures, clipped to [0, 1], and (b, 4) corruption levels in 0..1 in the order ``CORRUPTIONS``.
    """
    b = len(pictures)
    levels = torch.from_numpy((rng.random((b, 4)) * (rng.random((b, 4)) < share / 2)).astype(np.float32))
    torch_seed = torch.Generator().manual_seed(int(rng.integers(2**62)))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=torch_seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=torch_seed)

    column = levels[..., None, None, None]
    out = pictures + 0.02 * normal(b, 3, 1, 1)
    chosen = levels[:, 0] > 0
    if chosen.any():
        out[chosen] = gaussian_blur(out[chosen], 0.3 + 1.5 * strength * levels[chosen, 0])
    grey = out.mean(dim=(1, 2, 3), keepdim=True)
    out = grey + (1 - 0.6 * min(1.0, strength) * column[:, 1]) * (out - grey)
    chosen = levels[:, 2] > 0
    if chosen.any():
        n = int(chosen.sum())
        coarse = F.interpolate(normal(n, 3, 16, 16), scale_factor=4, mode="bilinear", align_corners=False)
        out[chosen] += 0.12 * strength * column[chosen, 2] * (coarse + 0.5 * normal(n, 3, PICTURE, PICTURE))
    for k in torch.nonzero(levels[:, 3] > 0).flatten().tolist():
        for _ in range(1 + int(8 * strength * float(levels[k, 3]))):
            y, x = rng.integers(0, PICTURE - 4, 2)
            tall, wide = rng.integers(1, 5, 2)
            colour = torch.from_numpy(rng.random((3, 1, 1)).astype(np.float32))
            patch = out[k, :, y : y + tall, x : x + wide]
            out[k, :, y : y + tall, x : x + wide] = patch + float(rng.uniform(0.3, 1)) * (colour - patch)
    grain = (0.03 * uniform(b, 1, 1, 1).square()) * normal(b, 3, PICTURE, PICTURE)
    return (out + grain).clamp(0, 1), levels


def to_float(pictures: np.ndarray) -> Tensor:
    """(b, H, W, 3) uint8 to (b, 3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 255


# ---------------------------------------------------------------- judged pictures


@dataclass
class Judged:
    """``n`` groups of ``m`` pictures, judged for each of ``k`` captions by :mod:`align.shapes.preferences`.

    Attributes:
        pictures: (n, m, 64, 64, 3) uint8.
        captions: (n, k) str.
        utilities: (n, k, m) float32, totals.
        aesthetics: (n, m) float32, 0 to 10.
        predictions: (n, m, K, 64, 64, 3) uint8, one-step predictions on the way to each picture, or ``None``.
        timesteps: (K,) int64, theirs.
    """

    pictures: np.ndarray
    captions: np.ndarray
    utilities: np.ndarray
    aesthetics: np.ndarray
    predictions: np.ndarray | None = None
    timesteps: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.captions)

    def take(self, index: np.ndarray | slice) -> Judged:
        """Some of the groups."""
        return Judged(
            self.pictures[index],
            self.captions[index],
            self.utilities[index],
            self.aesthetics[index],
            None if self.predictions is None else self.predictions[index],
            self.timesteps,
        )


def judge_groups(pictures: np.ndarray, captions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Utilities (n, k, m) and aesthetics (n, m) of pictures (n, m, 64, 64, 3) for captions (n, k).

    About 16 ms a picture.
    """
    n, m = pictures.shape[:2]
    utilities = np.zeros((n, captions.shape[1], m), np.float32)
    aesthetics = np.zeros((n, m), np.float32)
    for i in range(n):
        wanted = [parse(str(text)) for text in captions[i]]
        for j in range(m):
            seen = segment(pictures[i, j])
            aesthetics[i, j] = aesthetic(pictures[i, j], seen)
            for c, caption in enumerate(wanted):
                assert caption is not None
                utilities[i, c, j] = utility(pictures[i, j], caption, seen).total
    return utilities, aesthetics


@torch.no_grad()
def spoiled(data: Edits, vae: Any, number: int, seed: int, folder: Path) -> Judged:
    """Both sides of the first scenes, each in four versions that a generator might make.

    Made once (about 30 ms a picture) and kept in ``folder``; only then ``vae``, an AutoencoderKL, is
    used.

    A generator's mistakes are mistakes in latents: noise that is left over, two scenes half mixed.  Versions
    of a side: decoded from nearly its own latents, from noisy ones, from ones half-way to the other side or
    to another scene, and the rendered picture under :func:`corrupt`.
    """
    number = min(number, len(data))
    path = folder / f"spoiled-{number}-{seed}.npz"
    if path.exists():
        with np.load(path, allow_pickle=False) as store:
            return Judged(**{name: store[name] for name in store.files})
    assert vae is not None
    rng = np.random.default_rng([seed, 9])
    pictures = np.zeros((number, 8, PICTURE, PICTURE, 3), np.uint8)
    size = 20
    for start in range(0, number, size):
        stop = min(start + size, number)
        n = stop - start
        flat = data.pictures[start:stop].reshape(-1, PICTURE, PICTURE, 3)
        latents = vae.encode(to_float(flat) * 2 - 1).latent_dist.mean
        latents = latents.view(n, 2, *latents.shape[1:])
        deviation = float(latents.std())
        swap = torch.from_numpy(rng.random((n, 1, 1, 1, 1)) < 0.6)
        other = torch.where(swap, latents.flip(1), latents.roll(1, 0))

        def level(low: float, high: float, n: int = n) -> Tensor:
            return torch.from_numpy(rng.uniform(low, high, (n, 2, 1, 1, 1)).astype(np.float32))

        noise = torch.from_numpy(rng.standard_normal((3, *latents.shape)).astype(np.float32)) * deviation
        versions = torch.stack(
            [
                latents + level(0.0, 0.15) * noise[0],
                latents + level(0.2, 0.9) * noise[1],
                torch.lerp(latents, other, level(0.25, 0.6)) + 0.1 * noise[2],
            ],
            dim=2,
        )
        out = to_uint8(vae.decode(versions.flatten(0, 2)).sample / 2 + 0.5)
        pictures[start:stop].reshape(n, 2, 4, PICTURE, PICTURE, 3)[:, :, :3] = out.reshape(
            n, 2, 3, PICTURE, PICTURE, 3
        )
        worse = to_uint8(corrupt(to_float(flat), rng, share=0.6)[0])
        pictures[start:stop].reshape(n, 2, 4, PICTURE, PICTURE, 3)[:, :, 3] = worse.reshape(
            n, 2, PICTURE, PICTURE, 3
        )
    captions = data.captions[:number]
    utilities, aesthetics = judge_groups(pictures, captions)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(path, pictures=pictures, captions=captions, utilities=utilities, aesthetics=aesthetics)
    return Judged(pictures, captions, utilities, aesthetics)


# ---------------------------------------------------------------- slips


def _slip(scene: Scene, rng: np.random.Generator) -> Scene:
    """One mistake that a generator makes: an object too many or too few, another colour, shape or place."""
    things = list(scene.things)
    kind = str(
        rng.choice(
            ["extra", "drop", "colour", "shape", "places", "colours", "move", "background"], p=SLIP_SHARES
        )
    )
    k = int(rng.integers(len(things)))
    if kind in ("extra", "move"):
        source = things[k]
        others = things if kind == "extra" else things[:k] + things[k + 1 :]
        for _ in range(20):
            reach = 1.12 * source.radius + 1
            x, y = (float(value) for value in rng.uniform(reach, PICTURE - reach, 2))
            # Now and then it touches another one.
            if all(np.hypot(x - t.x, y - t.y) > 0.85 * (source.radius + t.radius) for t in others):
                return replace(scene, things=(*others, replace(source, x=x, y=y)))
        return scene
    if kind == "drop":
        return replace(scene, things=tuple(things[:k] + things[k + 1 :]))
    if kind == "background":
        return replace(scene, background=str(rng.choice(list(BACKGROUNDS))))
    if kind == "colour":
        things[k] = replace(things[k], colour=str(rng.choice(list(COLOURS))))
    elif kind == "shape":
        things[k] = replace(things[k], shape=str(rng.choice(SHAPES)))
    elif len(things) > 1:
        a, b = things[k], things[k - 1]
        if kind == "places":
            things[k], things[k - 1] = replace(a, x=b.x, y=b.y), replace(b, x=a.x, y=a.y)
        else:
            things[k], things[k - 1] = replace(a, colour=b.colour), replace(b, colour=a.colour)
    return replace(scene, things=tuple(things))


SLIP_SHARES = np.array([0.2, 0.14, 0.13, 0.13, 0.1, 0.1, 0.14, 0.06])


def slip(scene: Scene, rng: np.random.Generator) -> Scene:
    """One or two mistakes, without anything that is held out from training."""
    for _ in range(30):
        found = _slip(scene, rng)
        if rng.random() < 0.3 and found.things:
            found = _slip(found, rng)
        if all(pair_split(t.colour, t.shape) == "train" for t in found.things) and _only_trained_arrangements(
            list(found.things)
        ):
            return found
    return scene


def warp(pictures: Tensor, amplitude: Tensor, rng: np.random.Generator) -> Tensor:
    """Bend (b, 3, 64, 64) pictures smoothly, each by about its amplitude (b,) in pixels."""
    seed = torch.Generator().manual_seed(int(rng.integers(2**62)))
    field = torch.randn(len(pictures), 2, 10, 10, generator=seed)
    field = F.interpolate(field, size=(PICTURE, PICTURE), mode="bicubic", align_corners=False)
    field = field * (2 * amplitude / PICTURE).view(-1, 1, 1, 1)
    base = (torch.arange(PICTURE, dtype=torch.float32) + 0.5) * 2 / PICTURE - 1
    ys, xs = torch.meshgrid(base, base, indexing="ij")
    grid = torch.stack([xs, ys], dim=-1) + field.permute(0, 2, 3, 1)
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)


@torch.no_grad()
def slips(number: int, vae: Any, seed: int, folder: Path) -> Judged:
    """Six pictures for each of ``number`` captions: two right scenes, four with mistakes; bent and decoded.

    The cheap stand-in for generated pictures: mistakes of content are drawn, mistakes of drawing come from
    bending the picture and from noise in the autoencoder's latents.  Made once (about 20 ms a picture) and
    kept in ``folder``; only then ``vae``, an AutoencoderKL, is used.
    """
    path = folder / f"slips-{number}-{seed}.npz"
    if path.exists():
        with np.load(path, allow_pickle=False) as store:
            return Judged(**{name: store[name] for name in store.files})
    assert vae is not None
    rng = np.random.default_rng([seed, 13])
    pictures = np.zeros((number, 6, PICTURE, PICTURE, 3), np.uint8)
    captions = []
    for k, (caption, scene) in enumerate(islice(scenes("train", seed), number)):
        try:
            second = sample_scene(caption, rng)
        except NoRoom:
            second = scene
        shown = [scene, second, *(slip(scene if j % 2 else second, rng) for j in range(4))]
        pictures[k] = np.stack([render(one) for one in shown])
        captions.append(caption.text())
    flat = pictures.reshape(-1, PICTURE, PICTURE, 3)
    for start in range(0, len(flat), 60):
        part = to_float(flat[start : start + 60])
        bend = torch.from_numpy((rng.random(len(part)) ** 1.5 * 2.2).astype(np.float32))
        latents = vae.encode(warp(part, bend, rng) * 2 - 1).latent_dist.mean
        level = torch.from_numpy((0.5 * rng.random((len(part), 1, 1, 1)) ** 2).astype(np.float32))
        noise = torch.from_numpy(rng.standard_normal(latents.shape).astype(np.float32))
        latents = latents + level * latents.std() * noise
        flat[start : start + 60] = to_uint8(vae.decode(latents).sample / 2 + 0.5)
    texts = np.array(captions)[:, None]
    utilities, aesthetics = judge_groups(pictures, texts)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(path, pictures=pictures, captions=texts, utilities=utilities, aesthetics=aesthetics)
    return Judged(pictures, texts, utilities, aesthetics)


def to_uint8(pictures: Tensor) -> np.ndarray:
    """(b, 3, H, W) floats in [0, 1] to (b, H, W, 3) uint8, rounded and clipped."""
    array = (pictures.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1)
    return np.ascontiguousarray(array.numpy())


def generated(split: Split, folder: Path, limit: int | None = None) -> Judged | None:
    """All ``generated-<split>-*.npz`` of a folder, grouped by caption and judged; ``None`` if there is none.

    A file holds ``pictures`` (n, 64, 64, 3) uint8, ``captions`` (n) and, for the step-aware model, ``x0_t``
    (n, K, 64, 64, 3) uint8 and ``timesteps`` (K).  Groups are cut to the size of the smallest one with at
    least two pictures.  Judgements are kept beside each file (``judged-...npz``).

    Args:
        split: split of the captions.
        folder: where the files are.
        limit: use at most so many groups.

    Raises:
        ValueError: if files were made with different timesteps.
    """
    parts = [_judged_file(path) for path in sorted(folder.glob(f"generated-{split}-*.npz"))]
    if not parts:
        return None
    if len({None if part["timesteps"] is None else tuple(part["timesteps"]) for part in parts}) > 1:
        raise ValueError(f"generated pictures of split {split!r} were made with different timesteps")
    texts = np.concatenate([part["captions"] for part in parts])
    joined = {
        name: None if parts[0][name] is None else np.concatenate([part[name] for part in parts])
        for name in ("pictures", "utilities", "aesthetics", "predictions")
    }
    members: dict[str, list[int]] = {}
    for k, text in enumerate(texts):
        members.setdefault(str(text), []).append(k)
    groups = [found for found in members.values() if len(found) > 1][:limit]
    size = min(len(found) for found in groups)
    index = np.array([found[:size] for found in groups])
    pictures, utilities, aesthetics = joined["pictures"], joined["utilities"], joined["aesthetics"]
    assert pictures is not None
    assert utilities is not None
    assert aesthetics is not None
    return Judged(
        pictures[index],
        texts[index[:, :1]],
        utilities[index][:, None],
        aesthetics[index],
        None if joined["predictions"] is None else joined["predictions"][index],
        parts[0]["timesteps"],
    )


def _judged_file(path: Path) -> dict[str, np.ndarray | None]:
    """A generated file with its judgements."""
    with np.load(path, allow_pickle=False) as store:
        pictures, captions = store["pictures"], store["captions"]
        predictions = store["x0_t"] if "x0_t" in store.files else None
        timesteps = store["timesteps"].astype(np.int64) if "timesteps" in store.files else None
    beside = path.with_name(f"judged-{path.name}")
    if beside.exists():
        with np.load(beside, allow_pickle=False) as store:
            utilities, aesthetics = store["utilities"], store["aesthetics"]
    else:
        judged, beauty = judge_groups(pictures[:, None], captions[:, None])
        utilities, aesthetics = judged[:, 0, 0], beauty[:, 0]
        np.savez(beside, utilities=utilities, aesthetics=aesthetics)
    return {
        "pictures": pictures,
        "captions": captions,
        "utilities": utilities,
        "aesthetics": aesthetics,
        "predictions": predictions,
        "timesteps": timesteps,
    }
