"""Pictures in groups, read by the exact checker, so that they can be judged for any caption.

* ``generated``: pictures of the diffusion model, several seeds for a prompt: what the rewards are for;
* ``spoiled``: rendered pictures blurred, noisy, speckled or decoded from noisy or half-mixed latents: what teaches
  a reward how a picture is drawn.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from align.shapes.checker import Found, Segmentation, judge, segment
from align.shapes.grammar import Caption, parse
from align.shapes.render import PICTURE
from align.shapes.utility import aesthetic, judge_drawing, total
from scripts.shapes_training.edits import Edits
from scripts.shapes_training.spoil import corrupt, to_float, to_uint8


@dataclass
class Judged:
    """``n`` groups of ``m`` pictures.

    Attributes:
        pictures: (n, m, 64, 64, 3) uint8.
        prompts: n captions that the groups were made for.
        seen: n lists of m: what the checker reads in each picture.
        drawings: (n, m) float32, how well each is drawn, 0 to 1.
        aesthetics: (n, m) float32, 0 to 10.
        predictions: (n, m, K, 64, 64, 3) uint8, one-step predictions on the way to each picture, or ``None``.
        timesteps: (n, K) int64, theirs.
    """

    pictures: np.ndarray
    prompts: list[Caption]
    seen: list[list[Segmentation]]
    drawings: np.ndarray
    aesthetics: np.ndarray
    predictions: np.ndarray | None = None
    timesteps: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.prompts)

    def utility(self, group: int, member: int, caption: Caption) -> float:
        """Utility of a picture for any caption (``align.shapes.utility.utility``); 30 microseconds."""
        content = judge(self.seen[group][member], caption).score
        return total(content, float(self.drawings[group, member]))

    def utilities(self) -> np.ndarray:
        """(n, m) float64, of all pictures for their own prompts."""
        m = self.pictures.shape[1]
        return np.array(
            [[self.utility(k, j, prompt) for j in range(m)] for k, prompt in enumerate(self.prompts)]
        )


def read(pictures: np.ndarray, beside: Path) -> tuple[list[Segmentation], np.ndarray, np.ndarray]:
    """What the checker sees in (n, 64, 64, 3) uint8 pictures, drawing (n,) and aesthetics (n,).

    About 16 ms a picture, so kept as JSON in ``beside``.
    """
    if beside.exists():
        rows = json.loads(beside.read_text())
        seen = [_segmentation(row["seen"]) for row in rows]
    else:
        seen = [segment(picture) for picture in pictures]
        rows = [
            {
                "seen": asdict(one),
                "drawing": float(np.mean(judge_drawing(picture, one))),
                "aesthetic": aesthetic(picture, one),
            }
            for picture, one in zip(pictures, seen, strict=True)
        ]
        beside.write_text(json.dumps(rows))
    drawings = np.array([row["drawing"] for row in rows], np.float32)
    return seen, drawings, np.array([row["aesthetic"] for row in rows], np.float32)


def _segmentation(row: dict[str, Any]) -> Segmentation:
    things = tuple(Found(**thing) for thing in row["things"])
    first, second, third = row["background_colour"]
    return Segmentation(**{**row, "things": things, "background_colour": (first, second, third)})


def _caption(text: str) -> Caption:
    caption = parse(text)
    assert caption is not None, text
    return caption


@torch.no_grad()
def spoiled(data: Edits, vae: Any, number: int, seed: int, folder: Path) -> Judged:
    """Both sides of the first scenes, each in four versions that a generator might make.

    Made once (about 30 ms a picture) and kept in ``folder``; only then ``vae``, an AutoencoderKL, is
    used.

    A generator's mistakes are mistakes in latents: noise that is left over, two scenes half mixed.  Versions
    of a side: decoded from nearly its own latents, from noisy ones, from ones half-way to the other side or
    to another scene, and the rendered picture under ``corrupt``.
    """
    number = min(number, len(data))
    path = folder / f"spoiled-{number}-{seed}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng([seed, 9])
        parts = [_spoil(data.pictures[k : min(k + 20, number)], vae, rng) for k in range(0, number, 20)]
        np.savez(path, pictures=np.concatenate(parts))
    with np.load(path, allow_pickle=False) as store:
        pictures = store["pictures"]
    seen, drawings, aesthetics = read(pictures.reshape(-1, PICTURE, PICTURE, 3), path.with_suffix(".json"))
    return Judged(
        pictures,
        [_caption(str(pair[0])) for pair in data.captions[:number]],
        [seen[8 * k : 8 * k + 8] for k in range(number)],
        drawings.reshape(number, 8),
        aesthetics.reshape(number, 8),
    )


def _spoil(pairs: np.ndarray, vae: Any, rng: np.random.Generator) -> np.ndarray:
    """Eight versions, (n, 8, 64, 64, 3), of n pairs (n, 2, 64, 64, 3) of pictures."""
    n = len(pairs)
    flat = pairs.reshape(-1, PICTURE, PICTURE, 3)
    latents = vae.encode(to_float(flat) * 2 - 1).latent_dist.mean
    latents = latents.view(n, 2, *latents.shape[1:])
    swap = torch.from_numpy(rng.random((n, 1, 1, 1, 1)) < 0.6)
    other = torch.where(swap, latents.flip(1), latents.roll(1, 0))

    def level(low: float, high: float) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (n, 2, 1, 1, 1)).astype(np.float32))

    noise = torch.from_numpy(rng.standard_normal((3, *latents.shape)).astype(np.float32)) * latents.std()
    versions = torch.stack(
        [
            latents + level(0.0, 0.15) * noise[0],
            latents + level(0.2, 0.9) * noise[1],
            torch.lerp(latents, other, level(0.25, 0.6)) + 0.1 * noise[2],
        ],
        dim=2,
    )
    decoded = to_uint8(vae.decode(versions.flatten(0, 2)).sample / 2 + 0.5)
    drawn = to_uint8(corrupt(to_float(flat), rng, share=0.6)[0])
    whole = [
        decoded.reshape(n, 2, 3, PICTURE, PICTURE, 3),
        drawn.reshape(n, 2, 1, PICTURE, PICTURE, 3),
    ]
    return np.concatenate(whole, axis=2).reshape(n, 8, PICTURE, PICTURE, 3)


def generated(paths: Sequence[Path]) -> Judged:
    """The pictures of some files of ``generate``, grouped by caption and read.

    A file holds ``pictures`` (n, 64, 64, 3) uint8, ``captions`` (n) and, for the step-aware model, ``x0_t``
    (n, K, 64, 64, 3) uint8 and ``timesteps`` (K), which may differ from file to file.  Groups are cut to the size of
    the smallest one with at least two pictures.  What the checker reads is kept beside each file.
    """
    texts: list[str] = []
    seen: list[Segmentation] = []
    arrays: dict[str, list[np.ndarray]] = {"pictures": [], "drawings": [], "aesthetics": [], "x0_t": []}
    timesteps: list[np.ndarray] = []
    for path in paths:
        with np.load(path, allow_pickle=False) as store:
            arrays["pictures"].append(store["pictures"])
            arrays["x0_t"].append(store["x0_t"])
            captions = [str(text) for text in store["captions"]]
            timesteps += [store["timesteps"].astype(np.int64)] * len(captions)
            texts += captions
        found, drawings, aesthetics = read(arrays["pictures"][-1], path.with_suffix(".json"))
        seen += found
        arrays["drawings"].append(drawings)
        arrays["aesthetics"].append(aesthetics)
    members: dict[str, list[int]] = {}
    for k, text in enumerate(texts):
        members.setdefault(text, []).append(k)
    groups = {text: rows for text, rows in members.items() if len(rows) > 1}
    size = min(len(rows) for rows in groups.values())
    index = np.array([rows[:size] for rows in groups.values()])
    joined = {name: np.concatenate(parts)[index] for name, parts in arrays.items()}
    return Judged(
        joined["pictures"],
        [_caption(text) for text in groups],
        [[seen[k] for k in rows] for rows in index],
        joined["drawings"],
        joined["aesthetics"],
        joined["x0_t"],
        np.stack([timesteps[rows[0]] for rows in index]),
    )
