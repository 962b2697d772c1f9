"""The results of one run folder, safe against kills, full disks and second processes.

    results.csv     the rows, replaced as a whole from time to time and at the end; made from the journal
    images/         one PNG an item, named by seed, sample and key
    run.json        identity, record, plan, status, counts
    journal.jsonl   one line a finished or failed item, one line for some measured pictures: the truth
    errors.log      tracebacks
    .lock, .alive/, claims/  only while somebody works here

An item is committed in this order: picture (atomic, synced), journal line (appended, synced). What a kill
leaves is therefore a picture without a line, which is overwritten when the item is made again, or a temporary
file, which is deleted at the next open; never a line without its picture. The newest line of a key wins; a
failed item has no picture and is made again by the next run.

Pictures are measured after they were committed. A line of measurements holds, for each of some items, what
each metric said, and the fingerprint of the weights that said it; the row is the item's line with the newest
results over it. An item that lacks a result of the current weights is measured by whoever opens the folder
next; a metric that failed is no result.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from align import writing
from align.store.claims import Claims
from align.store.errors import StoreError, as_store_error
from align.store.index import Index
from align.store.inside import refuse_links
from align.store.journal import Journal
from align.store.jsonable import json_value
from align.store.lock import FolderLock
from align.store.manifest import Manifest
from align.store.measured import Result
from align.store.pictures import Original, Verify, picture_name, save_picture
from align.store.run_file import PlannedItem, RunFile
from align.store.snapshot import Snapshot

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger(__name__)
FILLED_IN = ("key", "seed", "sample", "image", "config", "session")
"""Columns of which the store itself says what they hold."""


class Store:
    """The open results of one run; a context manager."""

    def __init__(
        self,
        folder: Path | str,
        manifest: Manifest,
        plan: Sequence[PlannedItem],
        *,
        extend: bool = False,
        shared: bool = False,
        verify: Verify = "quick",
        csv_every: float = 30.0,
        token: str | None = None,
        foreign: bool = True,
        guest: bool = False,
    ) -> None:
        """Create the folder or go on with it, and check what is finished.

        Args:
            folder: the run folder, created with its parents when missing.
            manifest: what this is a run of.
            plan: all items of the run, each key once (else ValueError), in the order of the rows.
            extend: allow a folder of another configuration and keep its rows after the new ones.
            shared: allow other processes that also say so; items are then to be claimed before work.
            verify: how finished pictures are checked, see ``pictures.intact``. Opening 100,000 finished items
                with pictures of 3 kB in memory took 1.6 s with "quick" and 2.2 s with "full"; on large
                pictures "full" costs the time to read them all.
            csv_every: seconds between rebuilds of ``results.csv`` while committing; longer when one takes long.
            token: what this process is known by to others in the folder, see ``bury``; null draws one.
            foreign: keep rows outside of the plan in ``results.csv``; the journal keeps them anyway.
            guest: only measure what is there: status, plan and counts of ``run.json`` stay those of its run.

        Raises StoreError: in use, of another configuration, damaged, or not writable; nothing in the folder has changed then.
        """
        self.folder = folder = Path(folder)
        self.shared = shared
        self._items = list(plan)
        self._plan = {item.key: place for place, item in enumerate(self._items)}
        if len(self._plan) != len(self._items):
            raise ValueError("the plan holds an item twice")
        self._lock = FolderLock(folder, shared=shared, token=token)
        self._claims = Claims(folder, self._lock)
        self._mutex = threading.RLock()
        self._foreign = foreign
        self._closed = False
        with as_store_error(f"create {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
        refuse_links(folder)
        begin = partial(RunFile, folder, manifest, self._items, extend=extend, guest=guest)
        self._lock.acquire(partial(self._enter, begin))
        try:
            self._load(verify, csv_every)
        except BaseException:
            self._lock.release(lambda alone: None)
            raise
        self.session = self._file.session
        """Number of this session among those of ``run.json``."""
        self.unclosed = self._file.unclosed
        """Whether an earlier session ended without closing the folder: it was killed, or its machine was."""

    def _enter(self, begin: Callable[..., RunFile], alone: bool) -> None:
        self._file = begin(alone=alone)
        with as_store_error(f"write to {self.folder}"):
            (self.folder / "images").mkdir(exist_ok=True)
            if alone:
                self._claims.clear()
                writing.remove_leftovers(self.folder)
                writing.remove_leftovers(self.folder / "images")

    def _load(self, verify: Verify, csv_every: float) -> None:
        with as_store_error(f"open {self.folder / 'journal.jsonl'}"):
            self._journal = Journal(self.folder / "journal.jsonl")
            self._journal.mend()
            self._index = Index(self._journal, self._file.inline)
            pictures: dict[str, dict[str, Any] | None] = {}
            self._index.refresh(pictures)
            broken = self._index.drop_broken(self._plan, pictures, self.folder / "images", verify)
            if broken:
                log.warning("%s: %d pictures are missing or damaged and are made again", self.folder, broken)
        rows = partial(self._index.order, self._plan, foreign=self._foreign)
        self._snapshot = Snapshot(self.folder / "results.csv", self._index, rows, csv_every)
        self._snapshot.set_edited_aside()
        self._index.changed |= not self._foreign  # the rows of another plan may stand in the file
        self.rebuild_csv()

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """What each session in the folder ran with, this one last; see ``manifest.started_run``."""
        return list(self._file.content["sessions"])

    @property
    def done(self) -> set[str]:
        """Keys of planned items that are finished and not failed."""
        return {key for key in self._plan if self._index.is_done(key)}

    @property
    def failed(self) -> set[str]:
        """Keys of planned items whose newest line says that they failed."""
        return {key for key in self._plan if key in self._index.entries and not self._index.is_done(key)}

    def pending(self) -> list[PlannedItem]:
        """Planned items that are not done, failed ones among them, in the order of the plan."""
        return [item for item in self._items if not self._index.is_done(item.key)]

    def counts(self) -> dict[str, int]:
        """Numbers of items: planned, done, failed, remaining (no line yet), foreign (rows of other plans)."""
        done, failed, total = len(self.done), len(self.failed), len(self._items)
        foreign = len(self._index.entries) - done - failed
        remaining = total - done - failed
        return {"planned": total, "done": done, "failed": failed, "remaining": remaining, "foreign": foreign}

    def rows(self) -> list[dict[str, Any]]:
        """All rows in plain values, in the order of ``results.csv``."""
        return [self._index.row(key) for key in self._index.order(self._plan, foreign=self._foreign)]

    def refresh(self) -> None:
        """Take in what other processes have finished; ``results.csv`` follows from time to time. Raises StoreError."""
        with self._mutex:
            with as_store_error(f"read {self._journal.path}"):
                self._index.refresh()
            if self._snapshot.due():
                self.rebuild_csv()

    def bury(self, token: str) -> None:
        """Let others have what a process had claimed that is known to be gone, wherever it ran. Raises StoreError."""
        self._lock.strike(token)
        with self._mutex, self._lock.guard(), as_store_error(f"write to {self.folder}"):
            self._claims.void(token)

    def claim(self, item: PlannedItem, wanted: Mapping[str, str] | None = None) -> bool:
        """Whether this process shall make ``item`` now: not done, and in a shared folder nobody else is at it.

        With ``wanted``, fingerprints by metric, the item's picture is to be measured instead of made. A claim ends
        when the item is committed as done or ``measured``, and when its process ends. Raises StoreError.
        """

        def wants() -> bool:
            if wanted is None:
                return not self._index.is_done(item.key)
            return bool(self.lacking(item, wanted))

        with self._mutex:
            if not self.shared:
                return wants()
            with self._lock.guard(), as_store_error(f"claim an item in {self.folder}"):
                self._index.refresh()
                return wants() and self._claims.take(item.key)

    def lacking(self, item: PlannedItem, wanted: Mapping[str, str]) -> list[str]:
        return self._index.lacking(item.key, wanted)

    def unmeasured(self, wanted: Mapping[str, str]) -> list[PlannedItem]:
        """Done items of the plan that lack a result of some of the metrics, see ``lacking``, in its order."""
        keys = self._index.unmeasured(self._plan, wanted)
        return [item for item in self._items if item.key in keys]

    def without_value(self, wanted: Mapping[str, str]) -> list[PlannedItem]:
        """Done items of the plan that one of these metrics failed on and has had no result for since."""
        keys = self._index.without_value(self._plan, wanted)
        return [item for item in self._items if item.key in keys]

    def measured(self, results: Mapping[str, Mapping[str, Result]], by: Mapping[str, str]) -> None:
        """Keep what was measured, by key of the item and by metric, together: durable when this returns.

        ``by`` is the fingerprint of each metric's weights, in the order in which a row's status names metrics.
        Raises StoreError as ``commit``.
        """
        if not results:
            return
        measured = {key: {name: one.for_journal() for name, one in of.items()} for key, of in results.items()}
        # What failed stays claimed: the next run tries again, not another process of this one.
        whole = [key for key, of in results.items() if not any(one.failed for one in of.values())]
        self._keep({"measured": measured, "by": dict(by), "session": self.session}, whole)

    def _keep(self, record: dict[str, Any], finished: Sequence[str]) -> None:
        """Append a line to the journal and give up the claims on items that nothing more is done with."""
        with self._mutex:
            with as_store_error(f"write to {self.folder}"):
                self._journal.append(record)
                self._index.refresh()
            if self.shared and finished:
                with self._lock.guard():
                    for key in finished:
                        self._claims.drop(key)
            if self._snapshot.due():
                self.rebuild_csv()

    def picture(self, item: PlannedItem) -> Path:
        """Where the picture of a done item is."""
        return self.folder / str(self._index.row(item.key)["image"])

    def commit(
        self,
        item: PlannedItem,
        picture: bytes | Image | Original | None,
        row: Mapping[str, Any],
        *,
        hold: bool = False,
    ) -> None:
        """Keep a result: durable when this returns.

        Args:
            item: an item of the plan, else ValueError.
            picture: PNG bytes, a PIL image or a file to keep as it is; None, or not kept, where the item failed.
            row: values by column, numbers of any array library; those of ``FILLED_IN`` count for nothing.
                ``status`` is "ok" where not given and "failed: ..." for a failed item.
            hold: keep a claim on the item, because this process is going to measure its picture.

        Raises StoreError: not writable; what was committed before is intact, and the item can be committed again.
        """
        if item.key not in self._plan:
            raise ValueError(f"item {item.key[:16]} is not in the plan")
        values: dict[str, Any] = json_value(row)
        failed = str(values.setdefault("status", "ok")).startswith("failed")
        record: dict[str, Any] = {
            "key": item.key,
            "seed": int(item.seed),
            "sample": int(item.sample),
            "place": self._plan[item.key],
            "config": self._file.config,
            "session": self.session,
            "image": None,
            "row": {name: value for name, value in values.items() if name not in FILLED_IN},
        }
        with self._mutex:
            if picture is not None and not failed:
                ending = picture.path.suffix.lower() if isinstance(picture, Original) else ".png"
                name = picture_name(item.key, item.seed, item.sample, ending)
                with as_store_error(f"write to {self.folder}"):
                    record["image"] = save_picture(self.folder / "images", name, picture)
            self._keep(record, [] if failed or hold else [item.key])

    def rebuild_csv(self) -> None:
        """Bring ``results.csv`` up to date with the journal, as a whole. Raises StoreError."""
        # Guarded, so that an older snapshot cannot replace a newer one.
        with self._mutex, self._lock.guard() if self.shared else nullcontext():
            self._snapshot.update()

    def close(self, status: str | None = None) -> None:
        """Rebuild ``results.csv``, write the status and leave the folder; does nothing the second time.

        Where no ``status`` is given it is "finished" if every planned item has a row, else "interrupted". Raises
        StoreError where files cannot be written: the journal holds everything, and the folder is left.
        """
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            try:
                self._lock.release(lambda last: self._leave(last, status))
            finally:
                self._journal.close()

    def _leave(self, last: bool, status: str | None) -> None:
        self._snapshot.update()  # the lock is held
        counts = self.counts()
        reached = status or ("interrupted" if counts["remaining"] else "finished")
        self._file.end(reached if last else "started", counts)
        if last:
            self._claims.clear()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
            return
        with suppress(StoreError):  # the error on its way says more
            self.close("interrupted")
