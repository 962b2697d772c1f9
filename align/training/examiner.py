"""Who examines a training: judges of held-out pictures, none of which is what the training follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from align.rewards.base import Reward
from align.runner.rows import to_image
from align.sampling.sampler import Request, Samples
from align.shapes.checker import check_picture
from align.shapes.grammar import parse
from align.training.ranks import Ranks

CHECKER = "checker"
TOGETHER = 8


@dataclass(frozen=True)
class HeldOut:
    """A picture of each of a fixed set of prompts, with keyed noise.

    Attributes:
        names: of the judges, ``checker`` or a reward's.
        judges: the rewards among them.
        sampler: of the backbone that is trained, without any method.
    """

    names: Sequence[str]
    judges: Sequence[Reward]
    sampler: Samples
    prompts: Sequence[str]
    seed: int

    def __call__(self, ranks: Ranks) -> list[tuple[float, ...]]:
        """As ``Examiner``."""
        rows: list[tuple[float, ...]] = []
        own = ranks.share(self.prompts)
        by_name = {judge.name: judge for judge in self.judges}
        for first in range(0, len(own), TOGETHER):
            prompts = list(own[first : first + TOGETHER])
            made = self.sampler.sample([Request(prompt, seed=self.seed) for prompt in prompts])
            images = [to_image(one.picture) for one in made if one.picture is not None]
            columns = [
                [_facts(np.asarray(image), prompt) for image, prompt in zip(images, prompts, strict=True)]
                if name == CHECKER
                else by_name[name].score_images(images, prompts, TOGETHER).tolist()
                for name in self.names
            ]
            rows += zip(*columns, strict=True)
        return rows


def _facts(picture: np.ndarray, prompt: str) -> float:
    """Share of a caption's facts that a picture shows."""
    caption = parse(prompt)
    assert caption is not None
    return check_picture(picture, caption).score
