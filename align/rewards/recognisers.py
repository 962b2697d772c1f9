"""What reads texts in pictures, and the reward of what was read.

PP-OCRv5 finds lines and reads each; its boxes are cut out of a map of probabilities by OpenCV, an extra (``pip install
-e '.[ocr]'``).  GOT-OCR 2.0 reads a picture as one text and needs nothing else.  Numbers depend on who reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL.Image import Image

from align.checkpoints.weight_files import sha256
from align.errors import WrongWeights
from align.rewards.errors import RewardError
from align.rewards.ocr import Line, accuracy, lacks, target_of
from align.rewards.one_by_one import OneByOne

if TYPE_CHECKING:
    from align.rewards.ocr import Recogniser

Corners = tuple[int, int, int, int]
SAME_LINE = 10
"""Boxes whose tops differ by less pixels are read from left to right."""
MOST_TOKENS = 4096


class Ocr(OneByOne):
    """Accuracy of what ``read`` reads of the text that a prompt asks for, or a column of its row."""

    def __init__(
        self, name: str, read: Recogniser, fingerprint: dict[str, str], column: str | None = None
    ) -> None:
        self.name, self.read, self.fingerprint, self.column = name, read, fingerprint, column

    def judge(self, image: Image, prompt: str) -> float:
        known = self.metadata.get(prompt, {})
        target = target_of(prompt, known, self.column)
        if target is None:
            raise RewardError(f"{self.name}: {lacks(prompt, known, {'target': self.column})}")
        return accuracy(target, self.read(image))


def in_order(boxes: Sequence[Corners]) -> list[Corners]:
    """Boxes (x0, y0, x1, y1) as they are read: by their tops, those of one line from left to right."""
    found = sorted(boxes, key=lambda box: (box[1], box[0]))
    for last in range(len(found) - 1):
        for place in range(last, -1, -1):
            above, below = found[place], found[place + 1]
            if abs(below[1] - above[1]) < SAME_LINE and below[0] < above[0]:
                found[place], found[place + 1] = below, above
            else:
                break
    return found


class PaddleOcr:
    """PP-OCRv5: a detector of lines and a reader of each, from folders in transformers' layout."""

    def __init__(self, lines: Path, words: Path, device: torch.device) -> None:
        from transformers import AutoImageProcessor, AutoModelForObjectDetection, AutoModelForTextRecognition

        self.device = device
        self.see, self.spell = (AutoImageProcessor.from_pretrained(str(one)) for one in (lines, words))
        self.find = AutoModelForObjectDetection.from_pretrained(str(lines)).to(device).eval()
        self.reader = AutoModelForTextRecognition.from_pretrained(str(words)).to(device).eval()

    @torch.no_grad()
    def __call__(self, image: Image) -> list[Line]:
        seen = self.see(images=image, return_tensors="pt")
        found = self.find(pixel_values=seen["pixel_values"].to(self.device))
        (boxes,) = self.see.post_process_object_detection(found, target_sizes=seen["target_sizes"])
        lines: list[Line] = []
        for box in in_order([upright(one) for one in boxes["boxes"]]):
            pixels = self.spell(images=image.crop(box), return_tensors="pt")["pixel_values"]
            (read,) = self.spell.post_process_text_recognition(
                self.reader(pixel_values=pixels.to(self.device))
            )
            if read["score"] == read["score"]:  # of no text it is the mean of nothing
                lines.append((read["text"], read["score"]))
        return lines


def upright(box: torch.Tensor) -> Corners:
    """The upright box around four corners (4, 2), or one that is upright already (4,)."""
    corners = box.reshape(-1, 2).tolist()
    across, down = ([one[k] for one in corners] for k in (0, 1))
    left, top = int(min(across)), int(min(down))
    return left, top, max(int(max(across)), left + 1), max(int(max(down)), top + 1)


class GotOcr:
    """GOT-OCR 2.0, greedily: one text of a whole picture."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        from transformers import AutoProcessor, GotOcr2ForConditionalGeneration

        self.device = device
        self.processor = AutoProcessor.from_pretrained(str(folder))
        model = GotOcr2ForConditionalGeneration.from_pretrained(str(folder), dtype=torch.bfloat16)
        self.model = model.to(device).eval()

    @torch.no_grad()
    def __call__(self, image: Image) -> list[Line]:
        asked = self.processor(image, return_tensors="pt").to(self.device, torch.bfloat16)
        made = self.model.generate(
            **asked,
            do_sample=False,
            tokenizer=self.processor.tokenizer,
            stop_strings="<|im_end|>",
            max_new_tokens=MOST_TOKENS,
        )
        text = self.processor.decode(made[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)
        return [(text, 1.0)]


def load_recognisers(
    name: str,
    folders: Sequence[Path],
    device: torch.device | str,
    dtype: torch.dtype,
    options: Mapping[str, Any],
) -> Ocr:
    """The reward ``ocr`` (PP-OCRv5, mobile), ``ocr_server`` or ``ocr_got``. Raises WrongWeights."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # of reading weights, which takes no time
    device = torch.device(device)
    try:
        read = GotOcr(folders[0], device) if name == "ocr_got" else PaddleOcr(folders[0], folders[1], device)
    except (OSError, ValueError, KeyError) as error:
        raise WrongWeights(f"{folders[0]} holds no {name}: {str(error).splitlines()[0]}") from None
    hashes = {f"{one.name} model": sha256(one / "model.safetensors") for one in folders}
    return Ocr(name, read, {"architecture": type(read).__name__, **hashes}, options["target"])
