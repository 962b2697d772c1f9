"""Sampling a group of items so that one bad item, or too little memory, costs no other item its picture."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from align.config.schema import Config
from align.runner import build
from align.runner.plan import Item, same_group

if TYPE_CHECKING:
    from align.sampling.sampler import Outcome

log = logging.getLogger(__name__)


class DeviceLost(Exception):
    """The accelerator does not answer any more; only another process can go on."""


class Sampling:
    """A sampler that halves its group on errors.

    Args:
        config: the run.
        say: told, in one line, when memory ran out.
    """

    def __init__(self, config: Config, say: Callable[[str], None]) -> None:
        self.config = config
        self.say = say
        self.batch_size = config.run.batch_size
        self.in_flight = config.run.in_flight
        self._sampler: build.MakesPictures | None = None
        self._exhausted = False  # memory ran out although the network was called with one row

    def sample(self, items: Sequence[Item], on_step: Callable[[float], None]) -> list[Outcome]:
        """One outcome for each item, with ``error`` where it failed.

        Raises:
            DeviceLost: nothing can be sampled any more in this process.
        """
        from align.sampling.ledger import Cost
        from align.sampling.sampler import Outcome, Request

        if len(items) > self.in_flight and self._border(items):
            return self._halves(items, on_step)

        if self._sampler is None:
            self._sampler = build.build_sampler(self.config, self.batch_size)
        requests = [Request(item.prompt, item.negative, item.seed, item.sample) for item in items]
        try:
            outcomes = self._sampler.sample(requests, on_step)
            if len(outcomes) != len(items):
                raise RuntimeError(f"{len(outcomes)} outcomes for {len(items)} requests")
            return outcomes
        except Exception as error:
            if _device_lost(error):
                raise DeviceLost(_said(error)) from error
            no_memory = _out_of_memory(error)
            reason = _said(error)
            log.debug("sampling %d items", len(items), exc_info=True)
        one_group = not self._border(items)
        if no_memory:
            together = self.batch_size if one_group and len(items) > 1 else len(items)
            self._shrink(max(1, together // 2))
        if not one_group:
            return self._halves(items, on_step)
        if no_memory and not self._exhausted:
            return self.sample(items, on_step)
        return [Outcome(None, Cost(), {}, reason) for _ in items]

    def _border(self, items: Sequence[Item]) -> int:
        """Where to part the items, about in the middle and never within a group of particles; 0 if there is only one."""
        returned = self.config.method.returned
        borders = [k for k in range(1, len(items)) if not same_group(items[k - 1], items[k], returned)]
        return min(borders, key=lambda k: abs(k - len(items) // 2), default=0)

    def _halves(self, items: Sequence[Item], on_step: Callable[[float], None]) -> list[Outcome]:
        half = self._border(items)
        return self.sample(items[:half], on_step) + self.sample(items[half:], on_step)

    def _shrink(self, size: int) -> None:
        self._exhausted = self.batch_size == 1
        self.batch_size = min(self.batch_size, size)
        self.in_flight = min(self.in_flight, size)
        self._sampler = None
        self.say(
            f"out of memory: {self.in_flight} pictures together in calls of {self.batch_size} from now on"
        )
        gc.collect()
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()


def _said(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or "out of memory" in str(error).lower()


def _device_lost(error: BaseException) -> bool:
    text = str(error)
    lost = ("CUDA error", "CUDA driver error", "cuDNN error", "device-side assert")
    return (
        isinstance(error, RuntimeError) and any(part in text for part in lost) and not _out_of_memory(error)
    )
