"""Rendered pictures and their captions, kept in memory as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from align.shapes.grammar import Caption, Split, parse
from scripts.shapes_training.scenes import masks, render, scenes

MASK_SIDE = 8


@dataclass
class Rendered:
    """``n`` rendered pictures.

    Attributes:
        pictures: (n, 64, 64, 3) uint8.
        captions: n captions.
        regions: (n, 3, 8, 8) float16, area share of each phrase's objects in each cell (zero past the last).
    """

    pictures: np.ndarray
    captions: list[Caption]
    regions: np.ndarray

    def __len__(self) -> int:
        return len(self.captions)

    @property
    def texts(self) -> list[str]:
        """The captions in words."""
        return [caption.text() for caption in self.captions]

    def tensor(self, index: np.ndarray) -> Tensor:
        """Pictures by index, (b, 3, 64, 64) float32 in [-1, 1], channels last."""
        return to_tensor(self.pictures[index])


def to_tensor(pictures: np.ndarray) -> Tensor:
    """(b, H, W, 3) uint8 to (b, 3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def rendered(split: Split, number: int, seed: int, folder: Path) -> Rendered:
    """``number`` rendered pictures of a split, made once and kept in ``folder``."""
    path = folder / f"rendered-{split}-{number}-{seed}.npz"
    if path.exists():
        with np.load(path, allow_pickle=False) as store:
            read = [parse(str(text)) for text in store["captions"]]
            return Rendered(store["pictures"], [c for c in read if c is not None], store["regions"])
    pictures = np.empty((number, 64, 64, 3), np.uint8)
    regions = np.zeros((number, 3, MASK_SIDE, MASK_SIDE), np.float16)
    captions: list[Caption] = []
    for k, (caption, scene) in enumerate(islice(scenes(split, seed), number)):
        pictures[k] = render(scene)
        cells = masks(scene, MASK_SIDE)
        start = 0
        for p, phrase in enumerate(caption.phrases):
            regions[k, p] = cells[start : start + phrase.count].sum(axis=0)
            start += phrase.count
        captions.append(caption)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(path, pictures=pictures, regions=regions, captions=np.array([c.text() for c in captions]))
    return Rendered(pictures, captions, regions)
