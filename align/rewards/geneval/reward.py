"""GenEval as a reward: what a detector and CLIP see in a picture, against what its prompt's metadata asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image

from align.checkpoints.weight_files import sha256
from align.rewards.errors import RewardError
from align.rewards.geneval.colours import Colours, load_colours
from align.rewards.geneval.detector import Detector, load_detector
from align.rewards.geneval.prompts import fault
from align.rewards.geneval.verdict import Found, Rules, kept, strict_score, verdict
from align.rewards.one_by_one import OneByOne


class GenEval(OneByOne):
    """1 where a picture shows what is asked for and 0 where it does not; with ``strict`` Flow-GRPO's graded score."""

    def __init__(
        self,
        name: str,
        detector: Detector,
        colours: Colours,
        classes: Sequence[str],
        rules: Rules,
        fingerprint: dict[str, str],
        *,
        strict: bool = False,
    ) -> None:
        self.name, self.fingerprint, self.strict = name, fingerprint, strict
        self.detector, self.colours, self.rules = detector, colours, rules
        self.classes = list(classes)

    def judge(self, image: Image, prompt: str) -> float:
        """See ``OneByOne``. Raises RewardError: the prompt's metadata does not say what it asks for."""
        metadata = self.metadata.get(prompt, {})
        if wrong := fault(metadata, self.classes, self.colours.colours):
            raise RewardError(f"{self.name}: {wrong}")
        seen = self.detector(image)
        counting = metadata.get("tag") == "counting"
        objects = kept(seen.by_class(self.classes), self.rules, counting=counting)

        def named(name: str, some: Sequence[Found]) -> list[str]:
            return self.colours(
                name, image, [one.box for one in some], seen.masks[[one.place for one in some]]
            )

        if self.strict:
            return strict_score(metadata, objects, named, self.rules)[1]
        return float(verdict(metadata, objects, named, self.rules).correct)


def load_geneval(
    name: str,
    detector: Path,
    clip: Path,
    device: torch.device | str,
    dtype: torch.dtype,
    options: Mapping[str, Any],
) -> GenEval:
    """From mmdet's checkpoint and a folder with CLIP; ``options`` are those of ``judges.geneval``. Raises WeightsError."""
    rules = Rules(**{key: options[key] for key in Rules.__dataclass_fields__})
    found = load_detector(detector, device)
    colours = load_colours(clip, options["colours"], options["colour_templates"], device)
    facts = {
        "architecture": "transformers Mask2Former",
        detector.name: sha256(detector),
        **colours.clip.fingerprint,
    }
    return GenEval(name, found, colours, options["classes"], rules, facts, strict=name == "geneval_strict")
