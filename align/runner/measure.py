"""Measuring the pictures of an open store that lack a metric's value: just made, or by an earlier run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from align.pictures import read_picture
from align.rewards.metadata import metadata_of
from align.runner.failures import CannotGoOn, ErrorLog, said
from align.runner.interrupts import Interrupts
from align.runner.progress import Listener
from align.runner.score import CHUNK, Scorer, failure
from align.store.measured import Result
from align.store.run_file import PlannedItem
from align.store.store import Store

if TYPE_CHECKING:
    from PIL.Image import Image


class Measurable(PlannedItem, Protocol):
    """What measuring needs to know of an item; ``index`` is its place in the plan."""

    @property
    def prompt(self) -> str: ...

    @property
    def index(self) -> int: ...

    @property
    def tags(self) -> Mapping[str, str]: ...


Read = Callable[[Measurable], "Image"]
"""The picture of an item."""


class Measuring:
    """Measures committed pictures, each once, in any number of processes side by side.

    ``wanted`` has the fingerprint of each metric's weights, in the order in which a row's status names metrics.
    ``read`` says how a picture is had, where not from the store's folder.
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
        """What earlier runs left, or processes that are gone, unless it was tried here."""
        self.store.refresh()
        items: list[Measurable] = self.store.unmeasured(self.wanted)  # type: ignore[assignment]
        self.these(items)

    def rest(self) -> None:
        """What is left in the end: of processes that are gone, then what waited, one metric after another. Raises as ``these``."""
        self.backlog()
        while self.scorer.waiting:
            self.scorer.next_waiting()
            self._tried.clear()
            self.backlog()

    def these(self, items: Iterable[Measurable]) -> None:
        """Measure what some items lack and no other process is at.

        Raises StoreError, DeviceLost, WeightsError, CannotGoOn: who judges does not answer.
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
        """At most ``CHUNK`` claimed items; the results are kept all at once."""
        lacking = {item.key: self.store.lacking(item, self.wanted) for item in items}
        results: dict[str, dict[str, Result]] = {item.key: {} for item in items}
        pictures: dict[str, Image] = {}
        for item in items:
            try:
                pictures[item.key] = self.read(item)
            except Exception as error:
                self._tell("reading a picture", item, error)
                results[item.key] = {metric: failure(metric, error) for metric in lacking[item.key]}
        self.scorer.known = {item.prompt: metadata_of(item.tags) for item in items if item.tags}
        for metric in self.wanted:
            some = [item for item in items if metric in lacking[item.key] and item.key in pictures]
            if not some:
                continue
            if metric in self.scorer.waiting:
                waits = Result({metric: None}, "waits until all pictures are made", failed=True)
                for item in some:
                    results[item.key][metric] = waits
                continue
            found = self.scorer.measure(
                metric, [pictures[item.key] for item in some], [item.prompt for item in some]
            )
            for item, result in zip(some, found, strict=True):
                if isinstance(result, Exception):
                    self._tell(metric, item, result)
                    result = failure(metric, result)
                results[item.key][metric] = result
        with self.interrupts.finishing():
            self.store.measured(results, self.wanted)
        self._tried |= results.keys()
        self.listener.measured(len(items))
        if self.scorer.hopeless is not None:
            raise CannotGoOn(f"{self.scorer.hopeless}: the pictures are kept, and the same command goes on")

    def _tell(self, doing: str, item: Measurable, error: Exception) -> None:
        if self.errors.keep(doing, error, [item.index]):
            self.listener.say(f"{doing} failed on item {item.index} ({said(error)}): see {self.errors.path}")
