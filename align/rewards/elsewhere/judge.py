"""A reward whose model is elsewhere: pictures go out as PNG, numbers come back, and each is asked for once.

A row that fails is NaN where it guides, so that it is never chosen, and an error that says why where it is measured.  Where no
answer comes at all nothing is taken for one, and ``CannotJudge`` ends the run so that the same command goes on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from align.pictures import to_rgb
from align.rewards.base import Reward, check_pairing
from align.rewards.elsewhere.cache import Scores
from align.rewards.elsewhere.wire import Answer, Item, item_of
from align.rewards.errors import CannotJudge, RewardError
from align.rewards.preprocess import to_images
from align.semantics.llm import answers_folder

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_BYTES = 32 << 20
"""Of the pictures of one request, unless it is one alone."""

Asking = Callable[[Sequence[Item]], Answer]
"""As many rows as items. Raises CannotJudge."""


class RemoteReward(Reward):
    """A judge behind ``asking``, at most ``batch`` pictures a request; what it says is kept in ``scores``."""

    differentiable = False

    def __init__(
        self, name: str, asking: Asking, scores: Scores, fingerprint: dict[str, str], batch: int = 16
    ) -> None:
        self.name, self.asking, self.scores, self.fingerprint = name, asking, scores, fingerprint
        self.most = batch
        self.model: str | None = None
        """What the judge calls itself; ``None`` before its first answer."""

    def score(self, pictures: Tensor, prompts: Sequence[str], step: Tensor | None = None) -> Tensor:
        check_pairing(pictures, prompts, step)
        found, _ = self._values(to_images(pictures.detach()), prompts)
        return torch.tensor(found, dtype=torch.float32, device=pictures.device)

    def score_images(self, images: Sequence[Image], prompts: Sequence[str], batch: int = 8) -> Tensor:
        """As ``Reward.score_images``, of the pictures as they are. Raises RewardError: why the first has no score."""
        if len(images) != len(prompts):
            raise ValueError(f"{len(images)} pictures for {len(prompts)} prompts")
        found, why = self._values([to_rgb(image) for image in images], prompts)
        if why:
            raise RewardError(f"{self.name}: {why[0]}")
        return torch.tensor(found, dtype=torch.float32)

    def _values(self, images: Sequence[Image], prompts: Sequence[str]) -> tuple[list[float], list[str]]:
        """A score for each picture, NaN where there is none; and why, of each such item."""
        items = [
            item_of(image, prompt, self.metadata.get(prompt))
            for image, prompt in zip(images, prompts, strict=True)
        ]
        known: dict[str, float] = {}
        unknown: dict[str, Item] = {}
        for item in items:
            kept = self.scores.get(self.scores.place(item.id, item.metadata))
            if kept is None:
                unknown[item.id] = item
            else:
                self._is(kept[1])
                known[item.id] = float(kept[0].score or 0.0)
        why: list[str] = []
        for group in self._requests(list(unknown.values())):
            answer = self.asking(group)
            if len(answer.rows) != len(group):
                raise CannotJudge(f"{self.name}: {len(answer.rows)} rows for {len(group)} pictures")
            self._is(answer.model)
            for item, row in zip(group, answer.rows, strict=True):
                if row.score is None:
                    known[item.id] = math.nan
                    why.append(row.error)
                else:
                    known[item.id] = row.score
                    self.scores.put(self.scores.place(item.id, item.metadata), row, answer.model)
        return [known[item.id] for item in items], why

    def _requests(self, items: list[Item]) -> Iterator[list[Item]]:
        """Items in groups that are neither too many nor too large."""
        group: list[Item] = []
        size = 0
        for item in items:
            if group and (len(group) == self.most or size + len(item.png) > MOST_BYTES):
                yield group
                group, size = [], 0
            group.append(item)
            size += len(item.png)
        if group:
            yield group

    def _is(self, model: str) -> None:
        """Refuse to mix the scores of two models. Raises CannotJudge."""
        if self.model is None:
            self.model = model
        if self.model != model:
            raise CannotJudge(
                f"{self.name}: the judge was {self.model!r:.60} and is {model!r:.60} now, whose scores are no scores of one "
                f"scale: give judges.{self.name}.version another value to begin anew"
            )


def load_judge(
    name: str,
    device: torch.device | str,
    dtype: torch.dtype,
    asking: Asking | None = None,
    fingerprint: dict[str, str] | None = None,
    batch: int = 16,
) -> RemoteReward:
    """The reward behind ``asking``, of which ``fingerprint`` says what decides its values. Raises RewardError: there is none."""
    if asking is None or fingerprint is None:
        raise RewardError(f"{name} is elsewhere: give judges.{name}, as its options on the command line say")
    scores = Scores(answers_folder("scores"), json.dumps([name, fingerprint], sort_keys=True))
    return RemoteReward(name, asking, scores, fingerprint, batch)
