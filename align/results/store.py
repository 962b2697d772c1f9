"""The results of one run folder, safe against kills, full disks and second processes.

    results.csv     the rows, replaced as a whole from time to time and at the end; made from the journal
    images/         one PNG an item, named by seed, sample and key
    run.json        identity, record, plan, status, counts
    journal.jsonl   one line a finished or failed item: the truth
    .lock, claims/  only while somebody works here

An item is committed in this order: picture (atomic, synced), journal line (appended, synced). What a kill
leaves is therefore a picture without a line, which is overwritten when the item is made again, or a temporary
file, which is deleted at the next open; never a line without its picture. The newest line of a key wins; a
failed item has no picture and is made again by the next run.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from align.reading import open_file
from align.results import atomic
from align.results.claims import Claims
from align.results.errors import StoreError, as_store_error
from align.results.index import Index
from align.results.journal import Journal
from align.results.lock import FolderLock
from align.results.manifest import Manifest, check_identity, now, read_run, started_run, write_run
from align.results.pictures import Verify, picture_name, save_picture
from align.results.plain import plain
from align.results.snapshot import Snapshot

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger(__name__)


class Item(Protocol):
    """What the store needs to know of an item of the plan."""

    @property
    def key(self) -> str:
        """sha256 of the item's identity, 64 hex digits."""

    @property
    def seed(self) -> int:
        """Seed of the noise."""

    @property
    def sample(self) -> int:
        """Number of the picture among those of one prompt and seed."""


class Store:
    """The open results of one run; made by `Store.open`, used as a context manager."""

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        plan: Sequence[Item],
        *,
        shared: bool,
        csv_every: float,
        token: str | None = None,
    ):
        """Not for callers: see `open`."""
        self.folder = folder
        self.manifest = manifest
        self.shared = shared
        self._items = list(plan)
        self._plan = {item.key: place for place, item in enumerate(self._items)}
        if len(self._plan) != len(self._items):
            raise ValueError("the plan holds an item twice")
        self._lock = FolderLock(folder, shared=shared, token=token)
        self._claims = Claims(folder, self._lock.owner)
        self._config = manifest.digest
        self._mutex = threading.RLock()
        self._csv_every = csv_every
        self._run: dict[str, Any] = {}
        self._closed = False

    @classmethod
    def open(
        cls,
        folder: Path | str,
        manifest: Manifest,
        plan: Sequence[Item],
        *,
        extend: bool = False,
        shared: bool = False,
        verify: Verify = "quick",
        csv_every: float = 30.0,
        token: str | None = None,
    ) -> Store:
        """Create the folder or go on with it, and check what is finished.

        Args:
            folder: the run folder, created with its parents when missing.
            manifest: what this is a run of.
            plan: all items of the run, each key once, in the order of the rows.
            extend: allow a folder of another configuration and keep its rows after the new ones.
            shared: allow other processes that also say so; items are then to be claimed before work.
            verify: how finished pictures are checked, see `pictures.intact`. Opening 100,000 finished items
                with pictures of 3 kB in memory took 1.6 s with "quick" and 2.2 s with "full"; on large
                pictures "full" costs the time to read them all.
            csv_every: seconds between rebuilds of `results.csv` while committing; longer when one takes long.
            token: what this process is known by to others in the folder, see `bury`; null draws one.

        Raises:
            StoreError: in use by another process, of another configuration, damaged, or not writable. Nothing
                in the folder has changed then.
            ValueError: the plan holds a key twice.
        """
        store = cls(Path(folder), manifest, plan, shared=shared, csv_every=csv_every, token=token)
        with as_store_error(f"create {store.folder}"):
            store.folder.mkdir(parents=True, exist_ok=True)
        store._lock.acquire(lambda alone: store._enter(alone, extend))
        try:
            store._load(verify)
        except BaseException:
            store._lock.release(lambda alone: None)
            raise
        return store

    def _enter(self, alone: bool, extend: bool) -> None:
        existing = read_run(self.folder)
        if existing is None:
            if any((self.folder / name).exists() for name in ("results.csv", "journal.jsonl")):
                raise StoreError(f"{self.folder} holds results but no run.json: choose another run.folder")
        elif alone and self._is_bare():
            existing = None  # of a run that made nothing, perhaps because its weights were damaged
        else:
            check_identity(self.folder, existing, self.manifest, extend=extend)
        self._run = started_run(self.manifest, existing, self._plan_summary())
        write_run(self.folder, self._run)
        with as_store_error(f"write to {self.folder}"):
            (self.folder / "images").mkdir(exist_ok=True)
            if alone:
                self._claims.clear()
                atomic.remove_leftovers(self.folder)
                atomic.remove_leftovers(self.folder / "images")

    def _is_bare(self) -> bool:
        """Whether no item was ever made here: none in the journal, no picture."""
        with as_store_error(f"read {self.folder}"):
            if any((self.folder / "images").glob("*")):
                return False
            try:
                with open_file(self.folder / "journal.jsonl") as file:
                    return not any(b'"key"' in line for line in file)
            except FileNotFoundError:
                return True

    def _load(self, verify: Verify) -> None:
        with as_store_error(f"open {self.folder / 'journal.jsonl'}"):
            self._journal = Journal(self.folder / "journal.jsonl")
            self._journal.mend()
            self._index = Index(self._journal)
            pictures: dict[str, dict[str, Any] | None] = {}
            self._index.refresh(pictures)
            broken = self._index.drop_broken(self._plan, pictures, self.folder / "images", verify)
            if broken:
                log.warning("%s: %d pictures are missing or damaged and are made again", self.folder, broken)
        self._snapshot = Snapshot(self.folder / "results.csv", self._index, self._plan, self._csv_every)
        self._snapshot.set_edited_aside()
        self._snapshot.update()

    @property
    def done(self) -> set[str]:
        """Keys of planned items that are finished and not failed."""
        return {key for key in self._plan if self._is_done(key)}

    @property
    def failed(self) -> set[str]:
        """Keys of planned items whose newest line says that they failed."""
        entries = self._index.entries
        return {key for key in self._plan if key in entries and entries[key].failed}

    def pending(self) -> list[Item]:
        """Planned items that are not done, failed ones among them, in the order of the plan."""
        return [item for item in self._items if not self._is_done(item.key)]

    def _is_done(self, key: str) -> bool:
        entry = self._index.entries.get(key)
        return entry is not None and not entry.failed

    def counts(self) -> dict[str, int]:
        """Numbers of items: planned, done, failed, remaining (no line yet), foreign (rows of other plans)."""
        done, failed, total = len(self.done), len(self.failed), len(self._items)
        foreign = len(self._index.entries) - done - failed
        remaining = total - done - failed
        return {"planned": total, "done": done, "failed": failed, "remaining": remaining, "foreign": foreign}

    def rows(self) -> list[dict[str, Any]]:
        """All rows in plain values, in the order of `results.csv`."""
        return list(self.iter_rows())

    def iter_rows(self) -> Iterator[dict[str, Any]]:
        """As `rows`, one at a time."""
        return self._index.rows(self._plan)

    def refresh(self) -> None:
        """Take in what other processes have finished; `results.csv` follows from time to time. Raises StoreError."""
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

    def claim(self, item: Item) -> bool:
        """Whether this process shall make `item` now: not done, and in a shared folder nobody else is at it.

        A claim ends when the item is committed as done, and when its process ends. Raises StoreError.
        """
        with self._mutex:
            if not self.shared:
                return not self._is_done(item.key)
            with self._lock.guard(), as_store_error(f"claim an item in {self.folder}"):
                self._index.refresh()
                return not self._is_done(item.key) and self._claims.take(item.key)

    def commit(self, item: Item, picture: bytes | Image | None, row: Mapping[str, Any]) -> None:
        """Keep a result: durable when this returns.

        Args:
            item: an item of the plan.
            picture: PNG bytes or a PIL image; None, or not kept, where the item failed.
            row: values by column. `status` is "ok" where not given and "failed: ..." for a failed item;
                `key`, `seed`, `sample`, `image` and `config` are filled in here. Numbers may be of any array
                library.

        Raises:
            StoreError: the disk is full or not writable; what was committed before is intact, and the item
                can be committed again.
            ValueError: the item is not in the plan.
        """
        if item.key not in self._plan:
            raise ValueError(f"item {item.key[:16]} is not in the plan")
        values: dict[str, Any] = plain(row)
        failed = str(values.setdefault("status", "ok")).startswith("failed")
        for name in ("key", "seed", "sample", "image", "config"):
            values.pop(name, None)
        record: dict[str, Any] = {
            "key": item.key,
            "seed": int(item.seed),
            "sample": int(item.sample),
            "place": self._plan[item.key],
            "config": self._config,
            "image": None,
            "row": values,
        }
        with self._mutex:
            with as_store_error(f"write to {self.folder}"):
                if picture is not None and not failed:
                    name = picture_name(item.key, item.seed, item.sample)
                    record["image"] = save_picture(self.folder / "images", name, picture)
                self._journal.append(record)
                self._index.refresh()
            if self.shared and not failed:
                with self._lock.guard():
                    self._claims.drop(item.key)
            if self._snapshot.due():
                self.rebuild_csv()

    def rebuild_csv(self) -> None:
        """Bring `results.csv` up to date with the journal, as a whole. Raises StoreError."""
        with self._mutex:
            if self.shared:  # so that an older snapshot cannot replace a newer one
                with self._lock.guard():
                    self._snapshot.update()
            else:
                self._snapshot.update()

    def close(self, status: str | None = None) -> None:
        """Rebuild `results.csv`, write the status and leave the folder; does nothing the second time.

        Args:
            status: "finished" or "interrupted"; where not given, "finished" if every planned item has a row.

        Raises:
            StoreError: the files cannot be written; the journal holds everything, and the folder is left.
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
        self._run |= {"status": reached if last else "started", "updated": now(), "counts": counts}
        write_run(self.folder, self._run)
        if last:
            self._claims.clear()

    def _plan_summary(self) -> dict[str, Any]:
        seeds = sorted({int(item.seed) for item in self._items})
        samples = len({int(item.sample) for item in self._items})
        return {
            "items": len(self._items),
            "seeds": seeds if len(seeds) <= 100 else len(seeds),
            "samples": samples,
        }

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
