"""GenEval's detector: transformers' Mask2Former with mmdet's weights, mmdet's preprocessing and mmdet's reading of its output.

transformers' own post-processing goes through another size, keeps one class a query and thresholds by itself; here each of the
best pairs of query and class is an object, so that one query can stand for several and masks may overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import Mask2FormerForUniversalSegmentation

from align.checkpoints.weight_files import build, fill
from align.rewards.geneval.convert import config_of, from_mmdet
from align.rewards.geneval.verdict import Box, Found
from align.rewards.pickles import read_weights

MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
PADDING = 128.0
"""Of pixels right and below, before they are normalised."""
STRIDE = 32
BEST = 100
"""Pairs of query and class."""


@dataclass(frozen=True)
class Detections:
    """Objects of a picture (H, W), best first.

    Attributes:
        scores: (n,) float32.
        labels: (n,) numbers of classes.
        boxes: (n, 4), with x1 and y1 one beyond the mask.
        masks: (n, H, W) bool.
    """

    scores: Tensor
    labels: Tensor
    boxes: Tensor
    masks: Tensor

    def by_class(self, names: Sequence[str]) -> dict[str, list[Found]]:
        """Objects by the names of their classes; a ``place`` is that of its box and mask here."""
        found: dict[str, list[Found]] = {}
        rows = zip(self.labels.tolist(), self.boxes.tolist(), self.scores.tolist(), strict=True)
        for place, (label, box, score) in enumerate(rows):
            corners: Box = (box[0], box[1], box[2], box[3])
            found.setdefault(names[label], []).append(Found(corners, score, place))
        return found


class Detector:
    """A Mask2Former on a device; ``scale`` bounds the long and the short side of what it sees."""

    def __init__(
        self,
        model: Mask2FormerForUniversalSegmentation,
        device: torch.device,
        scale: tuple[int, int] = (1333, 800),
    ) -> None:
        self.model = model.to(device).eval()
        self.device, self.scale = device, scale

    def __call__(self, image: Image.Image) -> Detections:
        """Objects in an RGB picture."""
        pixels = np.asarray(image.convert("RGB"))
        return self.seen(resized(pixels, self.scale), pixels.shape[:2])

    @torch.no_grad()
    def seen(self, pixels: np.ndarray, size: tuple[int, ...]) -> Detections:
        """Objects in resized (h, w, 3) uint8 pixels of a picture of ``size`` (H, W)."""
        classes, masks = self.raw(pixels)
        height, width = pixels.shape[:2]
        masks = F.interpolate(masks[None], (_up(height), _up(width)), mode="bilinear", align_corners=False)[
            ..., :height, :width
        ]
        masks = F.interpolate(masks, tuple(size), mode="bilinear", align_corners=False)[0]
        return best(classes, masks)

    @torch.no_grad()
    def raw(self, pixels: np.ndarray) -> tuple[Tensor, Tensor]:
        """Logits of classes (queries, classes + 1) and of masks (queries, h', w') for resized (h, w, 3) uint8 pixels."""
        found = self.model(pixel_values=padded(pixels).to(self.device))
        return found.class_queries_logits[0], found.masks_queries_logits[0]


def resized(pixels: np.ndarray, scale: tuple[int, int]) -> np.ndarray:
    """Pixels (H, W, 3) uint8 brought into ``scale``, bilinear and without antialiasing, as OpenCV does, to 1/255."""
    height, width = pixels.shape[:2]
    factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
    size = int(height * factor + 0.5), int(width * factor + 0.5)
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float()
    grown = F.interpolate(tensor, size, mode="bilinear", align_corners=False).round().clamp(0, 255)
    found: np.ndarray = grown[0].permute(1, 2, 0).to(torch.uint8).numpy()
    return found


def padded(pixels: np.ndarray) -> Tensor:
    """Resized (h, w, 3) uint8 pixels as the network's input (1, 3, h', w'), both sides multiples of ``STRIDE``."""
    height, width = pixels.shape[:2]
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float()
    tensor = F.pad(tensor, (0, _up(width) - width, 0, _up(height) - height), value=PADDING)
    mean, deviation = (torch.tensor(one)[None, :, None, None] for one in (MEAN, DEVIATION))
    return (tensor - mean) / deviation


def best(classes: Tensor, masks: Tensor, number: int = BEST) -> Detections:
    """The best pairs of logits of classes (queries, classes + 1) and masks (queries, H, W)."""
    chances = classes.float().softmax(-1)[:, :-1]
    kinds = chances.shape[1]
    scores, places = chances.flatten().topk(min(number, chances.numel()), sorted=False)
    queries, labels = places // kinds, places % kinds
    logits = masks[queries].float()
    inside = logits > 0
    area = inside.flatten(1).sum(1).float()
    mask_scores = (logits.sigmoid() * inside).flatten(1).sum(1) / (area + 1e-6)
    scores = scores * mask_scores
    order = scores.argsort(descending=True, stable=True)
    return Detections(scores[order], labels[order], boxes_of(inside[order]), inside[order])


def boxes_of(masks: Tensor) -> Tensor:
    """Boxes (n, 4) around masks (n, H, W), the far corners one beyond; zeros around an empty one."""
    boxes = torch.zeros(len(masks), 4)
    for row, mask in enumerate(masks.cpu()):
        columns, lines = mask.any(0).nonzero()[:, 0], mask.any(1).nonzero()[:, 0]
        if len(columns):
            boxes[row] = torch.stack([columns[0], lines[0], columns[-1] + 1, lines[-1] + 1]).float()
    return boxes


def load_detector(
    weights: Path, device: torch.device | str = "cpu", scale: tuple[int, int] = (1333, 800)
) -> Detector:
    """From a checkpoint of mmdet, a pickle that is read as plain tensors or safetensors. Raises MissingWeights, WrongWeights."""
    theirs = read_weights(weights)
    config = config_of(theirs)
    model = build(lambda: Mask2FormerForUniversalSegmentation(config))
    fill(model, _unread(model) | from_mmdet(theirs), weights)
    return Detector(model, torch.device(device), scale)


def _unread(model: Mask2FormerForUniversalSegmentation) -> dict[str, Tensor]:
    """What the network holds and no output reads, of which mmdet has nothing."""
    parts = (".swin.layernorm.", "criterion.")
    names = [name for name in model.state_dict() if any(part in name for part in parts)]
    return {name: torch.zeros_like(model.state_dict()[name]) for name in names}


def _up(side: int) -> int:
    return -(-side // STRIDE) * STRIDE
