"""Metrics of finished 8-bit pictures: registered rewards and the exact checker.

A reward sees pictures in calls of one fixed shape, padded by repeating the last, so that a value does not
depend on how many pictures are measured beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from traceback import clear_frames
from typing import TYPE_CHECKING, Any

from align.config.judges import JudgesConfig
from align.config.schema import MetricsConfig
from align.errors import WeightsError
from align.rewards.errors import CannotJudge
from align.rewards.registry import REWARDS
from align.runner import build
from align.runner.failures import DeviceLost, device_lost, free_memory, out_of_memory, said
from align.store.columns import PARTS
from align.store.measured import CHECKER, Result

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from align.rewards.base import Reward

CHUNK = 8
"""Rows of every call, whatever ``run.batch_size`` is: the same picture has the same value in every run."""
VERDICTS = ("all", "objects", "colours", "counts", "relations", "sizes", "background")


class Scorer:
    """The metrics of a run; a reward is loaded onto its device when the first picture comes.

    Those ``waiting`` give no value until nothing is: there is no room for them before.
    """

    def __init__(
        self,
        metrics: MetricsConfig,
        device: torch.device,
        say: Callable[[str], None],
        judges: JudgesConfig | None = None,
    ) -> None:
        self.metrics = metrics
        self.device = device
        self.say = say
        self.waiting: frozenset[str] = frozenset()
        self.judges = judges
        self.known: dict[str, dict[str, Any]] = {}
        """What is known of prompts besides their words, by prompt."""
        self.hopeless: str | None = None
        """Why nothing more can be measured now: who judges does not answer."""
        self._rows: dict[str, int] = {}

    def next_waiting(self) -> None:
        """Let one that waited measure, alone on the device."""
        self.waiting -= {min(self.waiting)}
        build.forget_rewards()
        free_memory()

    def load_all(self) -> None:
        """Find damaged weights before any work. Raises WeightsError."""
        for name in self.metrics.rewards:
            build.check_reward(name, self.device, **build.with_judges(name, self.judges))

    def measure(
        self, metric: str, pictures: Sequence[Image], prompts: Sequence[str]
    ) -> list[Result | Exception]:
        """Of at most ``CHUNK`` pictures, each with its value or its error. Raises DeviceLost and WeightsError."""
        if metric == CHECKER:
            return [_verdicts(*one) for one in zip(pictures, prompts, strict=True)]
        try:
            reward = build.load_reward(metric, self.device, **build.with_judges(metric, self.judges))
            if REWARDS[metric].reads_metadata:
                reward.know(self.known)
        except WeightsError:
            raise
        except Exception as error:
            if device_lost(error):
                raise DeviceLost(said(error)) from error
            return [error] * len(pictures)
        return self._results(metric, reward, list(pictures), list(prompts))

    def _results(
        self, metric: str, reward: Reward, pictures: list[Image], prompts: list[str]
    ) -> list[Result | Exception]:
        rows, number = self._rows.get(metric, min(CHUNK, reward.batch or CHUNK)), len(pictures)

        def each(size: int) -> list[Result | Exception]:
            parts = [slice(start, start + size) for start in range(0, number, size)]
            found = (self._results(metric, reward, pictures[part], prompts[part]) for part in parts)
            return [result for results in found for result in results]

        if number > rows:
            return each(rows)
        try:
            if REWARDS[metric].answers:
                told = reward.answers(pictures, prompts)
                return [_result(metric, float(one.mean()), one.tolist()) for one in told]
            return [_result(metric, value) for value in _values(reward, pictures, prompts, rows)]
        except CannotJudge as error:
            self.hopeless = f"{metric} cannot be measured ({said(error)})"
            return [error] * number
        except Exception as error:
            if device_lost(error):
                raise DeviceLost(said(error)) from error
            smaller = out_of_memory(error) and rows > 1
            if not smaller and number == 1:
                clear_frames(error.__traceback__)  # which would keep the memory that the call had taken
                return [error]
        # Only here is that memory free again.
        if smaller:
            self._rows[metric] = rows // 2
            self.say(f"out of memory: {metric} measures {rows // 2} pictures a call from now on")
            free_memory()
        return each(rows // 2 if smaller else 1)


def _values(reward: Reward, pictures: list[Image], prompts: list[str], rows: int) -> list[float]:
    from align.rewards.base import one_a_picture

    pad = rows - len(pictures)
    found = reward.score_images(pictures + pictures[-1:] * pad, prompts + prompts[-1:] * pad, rows)
    return [float(value) for value in one_a_picture(reward.name, found, rows)[: len(pictures)]]


def _result(metric: str, value: float, parts: Sequence[float] = ()) -> Result:
    if not math.isfinite(value):
        return Result({metric: None}, "is not finite")
    return Result({metric: value} | ({f"{PARTS}{metric}": list(parts)} if parts else {}))


def failure(metric: str, error: Exception) -> Result:
    """What is kept of a metric that fails on a picture."""
    columns = [f"check_{name}" for name in VERDICTS] if metric == CHECKER else [metric]
    return Result(dict.fromkeys(columns), f"failed: {' '.join(said(error).split())[:300]}", failed=True)


def _verdicts(picture: Image, prompt: str) -> Result | Exception:
    try:
        return Result(verdicts(picture, prompt))
    except Exception as error:
        return error


def verdicts(picture: Image, prompt: str) -> dict[str, bool | None]:
    """The checker's verdicts; empty cells for a prompt outside the grammar, or another size of picture."""
    import numpy as np

    from align.shapes.checker import check_picture
    from align.shapes.grammar import parse

    caption = parse(prompt)
    if caption is None or picture.size != (64, 64):
        return {f"check_{name}": None for name in VERDICTS}
    verdict = check_picture(np.asarray(picture), caption)
    return {f"check_{name}": bool(getattr(verdict, name)) for name in VERDICTS}
