"""The work of a score: keep the pictures that are not in the folder yet, measure them, a few at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from align.config.schema import Config
from align.pictures import PictureError, read_picture
from align.reading import read_bytes
from align.runner import build, measure
from align.runner.devices import torch_device
from align.runner.failures import ErrorLog
from align.runner.files import Files
from align.runner.interrupts import Interrupts
from align.runner.measure import Measuring
from align.runner.memory import waiting
from align.runner.progress import Listener
from align.runner.score import CHUNK, Scorer
from align.runner.trial import try_rewards
from align.scoring.items import Scorable
from align.store.pictures import Original
from align.store.store import Store

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Seen:
    """An item's picture: the file's bytes and what they show, or why they show nothing."""

    item: Scorable
    original: Original | None = None
    picture: Image | None = None
    error: str = ""


def see(item: Scorable) -> Seen:
    """Read the picture of an item."""
    path = item.asked.path
    try:
        changed = path.stat().st_mtime_ns
        data = read_bytes(path)
    except OSError as error:
        return Seen(item, error=f"{item.asked.name} cannot be read: {error.strerror or type(error).__name__}")
    if hashlib.sha256(data).hexdigest() != item.sha256:
        return Seen(item, error=f"{item.asked.name} was changed meanwhile: the same command again scores it")
    try:
        return Seen(item, Original(path, data, changed), read_picture(data))
    except PictureError as error:
        return Seen(item, error=f"{item.asked.name}: {error}")


class Scoring:
    """Keeps pictures in an open store and measures them.

    ``label`` stands for the method in rows of pictures that no run made; ``wanted`` has each metric's fingerprint.
    """

    def __init__(
        self,
        config: Config,
        label: str,
        wanted: Mapping[str, str],
        store: Store,
        meter: Listener,
        interrupts: Interrupts,
    ) -> None:
        self.config = config
        self.label = label
        self.store = store
        self.meter = meter
        self.interrupts = interrupts
        self._pictures: dict[str, Image] = {}
        self._errors = ErrorLog(store.folder)
        build.set_up_torch(config.run.threads)
        self._device = torch_device(config.run.device)
        self._scorer = Scorer(config.metrics, self._device, meter.say, config.judges)
        self._scorer.waiting = waiting(Files(config), ())
        self._measuring = Measuring(
            store, wanted, self._scorer, meter, interrupts, self._errors, self._picture
        )

    def run(self, items: Sequence[Scorable]) -> None:
        """Measure what lacks a value, then keep and measure items that are not in the store.

        With ``run.on_error=stop`` until a picture cannot be read.

        Raises:
            CannotGoOn, DeviceLost, StoreError, WeightsError: nothing can be measured, or kept, any more.
        """
        self._scorer.load_all()
        self._measuring.backlog()
        if items:
            try_rewards(self.config, self._scorer, items, self._device, self._errors)
        for group in ahead(self._claimed(items)):
            for seen in group:
                self._commit(seen)
            self._pictures = {one.item.key: one.picture for one in group if one.picture is not None}
            self._measuring.these(one.item for one in group if one.picture is not None)
            self._pictures = {}
            if self.config.run.on_error == "stop" and any(one.error for one in group):
                return
        self._measuring.rest()

    def _claimed(self, items: Iterable[Scorable]) -> Iterator[list[Scorable]]:
        """Items that no other process is at, some at a time."""
        group = []
        for item in items:
            with self.interrupts.finishing():
                if self.store.claim(item):
                    group.append(item)
            if len(group) == CHUNK:
                yield group
                group = []
        if group:
            yield group

    def _commit(self, seen: Seen) -> None:
        item = seen.item
        row: dict[str, Any] = {
            "prompt": item.prompt,
            "method": self.label,
            "backbone": "",
            "reward": "",
            "optimised": [],
            "status": f"failed: {seen.error}"[:400] if seen.error else "ok",
            "info_picture": item.asked.name,
            **item.asked.columns,
        }
        with self.interrupts.finishing():
            self.store.commit(item, seen.original, row, hold=True)
        self.meter.committed(failed=bool(seen.error))
        if seen.error:
            self.meter.say(row["status"])

    def _picture(self, item: measure.Measurable) -> Image:
        return self._pictures.get(item.key) or read_picture(self.store.picture(item))


def ahead(groups: Iterable[list[Scorable]]) -> Iterator[list[Seen]]:
    """The pictures of each group; those of the next one are read while the caller works."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting = None
        for group in groups:
            reading = pool.submit(lambda items: [see(item) for item in items], group)
            if waiting is not None:
                yield waiting.result()
            waiting = reading
        if waiting is not None:
            yield waiting.result()
