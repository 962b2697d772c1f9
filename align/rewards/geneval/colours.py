"""Which of a few colours detected objects have, by CLIP: each crop outside its mask is grey.

Colours of a class are means of unit text embeddings, as zero-shot classification has them; ties are decided in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from align.rewards.clip import ContrastiveReward, load_clip
from align.rewards.geneval.verdict import Box
from align.rewards.preprocess import to_pictures

GREY = (153, 153, 153)
"""Outside of an object."""
BATCH = 8


class Colours:
    """Names colours with a CLIP in transformers' layout; ``templates`` hold {colour} and {class}."""

    def __init__(self, clip: ContrastiveReward, colours: Sequence[str], templates: Sequence[str]) -> None:
        self.clip, self.colours, self.templates = clip, list(colours), list(templates)
        self._texts: dict[str, Tensor] = {}

    def __call__(self, name: str, image: Image.Image, boxes: Sequence[Box], masks: Tensor) -> list[str]:
        """The colour of each object of a class in an RGB picture; ``masks`` are (n, H, W) bool."""
        if not boxes:
            return []
        return [self.colours[best] for best in self.logits(name, image, boxes, masks).argmax(1).tolist()]

    @torch.no_grad()
    def logits(self, name: str, image: Image.Image, boxes: Sequence[Box], masks: Tensor) -> Tensor:
        """100 times the cosine of each object and colour, (n, colours) float32."""
        crops = self.clip.size_images(
            [crop(image, box, mask) for box, mask in zip(boxes, masks, strict=True)]
        )
        found = [
            self.clip.image_embeddings(to_pictures(crops[first : first + BATCH]))
            for first in range(0, len(crops), BATCH)
        ]
        return 100 * torch.cat(found) @ self._colours_of(name).T

    def _colours_of(self, name: str) -> Tensor:
        """Unit embeddings of the colours of a class, (colours, d)."""
        if name not in self._texts:
            rows = []
            for colour in self.colours:
                texts = [one.replace("{colour}", colour).replace("{class}", name) for one in self.templates]
                with torch.no_grad():
                    rows.append(F.normalize(self.clip.texts(texts).mean(0), dim=-1))
            self._texts[name] = torch.stack(rows)
        return self._texts[name]


def crop(image: Image.Image, box: Box, mask: Tensor) -> Image.Image:
    """What a box holds of an RGB picture, grey where the (H, W) mask is not; corners are rounded half to even."""
    seen = Image.fromarray(mask.to("cpu", torch.uint8).mul(255).numpy(), "L")
    alone = Image.composite(image, Image.new("RGB", image.size, GREY), seen)
    left, top, right, bottom = (round(one) for one in box)
    return alone.crop((left, top, max(right, left + 1), max(bottom, top + 1)))


def load_colours(
    folder: Path, colours: Sequence[str], templates: Sequence[str], device: torch.device | str = "cpu"
) -> Colours:
    """From a folder with a CLIP, its tokenizer too. Raises MissingWeights, WrongWeights."""
    clip = load_clip("geneval colours", folder, device=device, variant="clip")
    return Colours(clip, colours, templates)
