"""Measuring the pictures of an open store that lack a metric's value: just made, or by an earlier run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from align.pictures import read_picture
from align.runner.failures import ErrorLog, said
from align.runner.interrupts import Interrupts
from align.runner.progress import Listener
from align.runner.score import CHUNK, Scorer, unreadable
from align.store.measured import Result
from align.store.run_file import PlannedItem
from align.store.store import Store

if TYPE_CHECKING:
    from PIL.Image import Image


class Measurable(PlannedItem, Protocol):
    """What measuring needs to know of an item."""

    @property
    def prompt(self) -> str:
        """The text that its picture is for."""

    @property
    def index(self) -> int:
        """Place in the plan."""


Read = Callable[[Measurable], "Image"]
"""The picture of an item."""


class Measuring:
    """Measures committed pictures, each once, in any number of processes side by side.

    Args:
        store: whose pictures.
        wanted: fingerprint of each metric's weights, in the order in which a row's status names metrics.
        scorer: the metrics.
        listener: told of the progress.
        interrupts: lets a commit end.
        errors: keeps tracebacks.
        read: how a picture is had; null reads it from the store's folder.
    """

    def __init__(
        self,
        store: Store,
        wanted: Mapping[str, str],
        scorer: Scorer,
        listener: Listener,
        interrupts: Interrupts,
        errors: ErrorLog,
        read: Read | None = None,
    ) -> None:
        self.store = store
        self.wanted = wanted
        self.scorer = scorer
        self.listener = listener
        self.interrupts = interrupts
        self.errors = errors
        self.read = read or (lambda item: read_picture(store.picture(item)))
        self._tried: set[str] = set()

    def backlog(self) -> None:
        """Measure all that lacks a value and was not tried here: what earlier runs left, or processes that are gone.

        Raises: see ``these``.
        """
        self.store.refresh()
        items: list[Measurable] = self.store.unmeasured(self.wanted)  # type: ignore[assignment]
        self.these(items)

    def these(self, items: Iterable[Measurable]) -> None:
        """Measure what some items lack and no other process is at.

        Raises:
            StoreError: a result cannot be written.
            DeviceLost: nothing can be measured any more.
            WeightsError: weights are damaged.
        """
        some: list[Measurable] = []
        for item in items:
            if item.key in self._tried:
                continue
            with self.interrupts.finishing():
                if self.store.claim(item, self.wanted):
                    some.append(item)
            if len(some) == CHUNK:
                self._measure(some)
                some = []
        if some:
            self._measure(some)

    def _measure(self, items: list[Measurable]) -> None:
        """Measure at most ``CHUNK`` claimed items and keep the results, all at once."""
        lacking = {item.key: self.store.lacking(item, self.wanted) for item in items}
        results: dict[str, dict[str, Result]] = {item.key: {} for item in items}
        pictures: dict[str, Image] = {}
        for item in items:
            try:
                pictures[item.key] = self.read(item)
            except Exception as error:
                self._tell("reading a picture", [item], error)
                results[item.key] = {metric: unreadable(metric, error) for metric in lacking[item.key]}
        for metric in self.wanted:
            some = [item for item in items if metric in lacking[item.key] and item.key in pictures]

            def failed(
                place: int, error: Exception, metric: str = metric, some: list[Measurable] = some
            ) -> None:
                self._tell(metric, [some[place]], error)

            if some:
                of = [pictures[item.key] for item in some]
                found = self.scorer.measure(metric, of, [item.prompt for item in some], failed)
                for item, result in zip(some, found, strict=True):
                    results[item.key][metric] = result
        with self.interrupts.finishing():
            self.store.measured(results, self.wanted)
        self._tried |= results.keys()
        self.listener.measured(len(items))

    def _tell(self, doing: str, items: list[Measurable], error: Exception) -> None:
        if self.errors.keep(doing, error, [item.index for item in items]):
            self.listener.say(
                f"{doing} failed on item {items[0].index} ({said(error)}): see {self.errors.path}"
            )
