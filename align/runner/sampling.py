"""Sampling a group of items so that one bad item, or too little memory, costs no other item its picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

from align.config.errors import ConfigError
from align.errors import WeightsError
from align.rewards.errors import CannotJudge
from align.runner import build
from align.runner.failures import (
    CannotGoOn,
    DeviceLost,
    ErrorLog,
    device_lost,
    free_memory,
    out_of_memory,
    said,
)
from align.runner.files import Files
from align.runner.plan import Item, group_of

if TYPE_CHECKING:
    from align.sampling.batching import Calls
    from align.sampling.sampler import Outcome, Samples


class Sampling:
    """A sampler that makes smaller calls where memory runs out, and finds the items that an error is about."""

    def __init__(self, files: Files, calls: Calls, say: Callable[[str], None], errors: ErrorLog) -> None:
        self.files = files
        self.config = files.config
        self.calls = calls
        self.say = say
        self.errors = errors
        self.hopeless: str | None = None
        """What a whole group failed with, although nothing is wrong with any of its prompts: so would the next one."""
        self._sampler: Samples | None = None
        self._apart = False  # memory ran out although the network was called with one row

    def sample(
        self, items: Sequence[Item], on_step: Callable[[float], None], *, again: bool = False
    ) -> list[Outcome]:
        """One outcome for each item, with ``error`` where it failed. Raises DeviceLost, CannotGoOn, WeightsError.

        ``again``: without items that were found to be the cause of an error.
        """
        from align.sampling.sampler import Request

        # Pictures of one group of particles stay together: apart, the group would be made twice.
        returned = self.config.method.returned
        parts = [list(part) for _, part in groupby(items, lambda item: group_of(item, returned))]
        if self._apart and len(parts) > 1:
            return [outcome for part in parts for outcome in self.sample(part, on_step, again=again)]
        if self._sampler is None:
            self._sampler = self._built()
        requests = [Request(item.prompt, item.negative, item.seed, item.sample) for item in items]
        try:
            return self._sampler.sample(requests, on_step)
        except Exception as error:
            if device_lost(error):
                raise DeviceLost(said(error)) from error
            no_memory, reason = out_of_memory(error), said(error)
            if isinstance(error, CannotJudge):  # which would be asked in vain for each of them
                self.errors.keep("sampling", error, [item.index for item in items])
                self.hopeless = reason
                return [_failed(reason) for _ in items]
            if not no_memory or self._apart:
                self.errors.keep("sampling", error, [item.index for item in items])
        # Only here is the memory free again that the call had taken.
        if not no_memory:
            return self._without_culprits(items, on_step, reason, again=again)
        if self._apart:
            return [_failed(reason) for _ in items]
        self._shrink()
        return self.sample(items, on_step, again=again)

    def leave(self) -> None:
        """Nothing is sampled any more: the model leaves its device."""
        self._sampler = None
        build.forget_backbone()
        free_memory()

    def _built(self) -> Samples:
        try:
            return build.build_sampler(self.config, self.calls, self.files)
        except (WeightsError, ConfigError):
            raise
        except Exception as error:
            if device_lost(error):
                raise DeviceLost(said(error)) from error
            self.errors.keep("loading the model", error)
            raise CannotGoOn(
                f"the model cannot be loaded ({said(error)}): mend it, and the same command goes on; "
                f"the traceback is in {self.errors.path}"
            ) from error

    def _without_culprits(
        self, items: Sequence[Item], on_step: Callable[[float], None], reason: str, *, again: bool
    ) -> list[Outcome]:
        """After an error: the items that it comes from fail alone, and the others are made.

        Where it comes from none, all fail with its ``reason``, and there is no hope for other groups.
        """
        wrong = {} if again else self._culprits(items)
        rest = [item for item in items if item.prompt not in wrong]
        alike = len(wrong) > 1 and len(set(wrong.values())) == 1
        if not wrong or (alike and not rest):
            self.hopeless = reason
        if not wrong or not rest:
            return [_failed(wrong.get(item.prompt, reason)) for item in items]
        made = iter(self.sample(rest, on_step, again=True))
        return [_failed(wrong[item.prompt]) if item.prompt in wrong else next(made) for item in items]

    def _culprits(self, items: Sequence[Item]) -> dict[str, str]:
        """Prompts that cannot be read or judged, with the reason; found without sampling anything."""
        import torch

        from align.sampling.sampler import Request

        assert self._sampler is not None
        grey = torch.full((1, 3, self.config.backbone.height, self.config.backbone.width), 0.5)
        wrong: dict[str, str] = {}
        for item in {item.prompt: item for item in items}.values():
            try:
                self._sampler.probe(Request(item.prompt, item.negative, item.seed, item.sample), grey)
            except Exception as error:
                if device_lost(error):
                    raise DeviceLost(said(error)) from error
                if not out_of_memory(error):
                    wrong[item.prompt] = said(error)
                    self.errors.keep("reading a prompt", error, [item.index])
        return wrong

    def _shrink(self) -> None:
        """Smaller calls; with calls of one row, one group of particles at a time."""
        if self.calls.most == 1:
            self._apart = True
            self.say("out of memory: one picture at a time from now on")
        else:
            self.calls = replace(self.calls, most=self.calls.most // 2)
            self.say(f"out of memory: network calls of {self.calls.most} rows from now on")
            self._sampler = None
        free_memory()


def _failed(reason: str) -> Outcome:
    from align.sampling.ledger import Cost
    from align.sampling.sampler import Outcome

    return Outcome(None, Cost(), {}, reason)
