"""``results.csv`` as a snapshot of the journal: never edited, always replaced."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from align import writing
from align.reading import open_file
from align.store.columns import ordered
from align.store.csvfile import csv_lines
from align.store.errors import as_store_error
from align.store.index import Index


class Snapshot:
    """The ``results.csv`` of one folder: rows of the index, in the order of the keys that ``order`` tells.

    ``every`` are the seconds between two snapshots while items arrive; longer where making one takes long.
    """

    def __init__(self, path: Path, index: Index, order: Callable[[], list[str]], every: float) -> None:
        self.path = path
        self.index = index
        self.order = order
        self.every = every
        self.next = time.monotonic() + every

    def due(self) -> bool:
        return time.monotonic() >= self.next

    def update(self) -> None:
        """Bring the file up to date with the journal, as a whole. Raises StoreError."""
        began = time.monotonic()
        with as_store_error(f"write {self.path}"):
            self.index.refresh()
            if self.index.changed or not self.path.exists():
                self._write()
        now = time.monotonic()
        self.next = now + max(self.every, 20 * (now - began))

    def _write(self) -> None:
        end = self.index.end
        with writing.replacing(self.path) as file:
            hashed = hashlib.sha256()
            keys = self.order()
            for line in csv_lines(ordered(self.index.names(keys)), map(self.index.row, keys)):
                hashed.update(line)
                file.write(line)
            # The journal knows a snapshot before it gets its name: any other content was edited by hand.
            self.index.journal.append({"csv": hashed.hexdigest(), "end": end})
        self.index.refresh()

    def set_edited_aside(self) -> None:
        """Where the file is no snapshot that the journal knows, keep a copy, warn, and have it made again."""
        if not self.path.exists():
            return
        with as_store_error(f"read {self.path}"), open_file(self.path) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            self.index.refresh()  # another process may have made one since: the journal knows it before it is there
        self.index.changed = self.index.changed or found != self.index.newest_snapshot
        if found in self.index.snapshots:
            return
        kept = self.path.with_name(f"results.edited-{found[:8]}.csv")
        with as_store_error(f"write {kept}"):
            writing.write_bytes(kept, self.path.read_bytes())
        warnings.warn(
            f"{self.path} was edited: it is made again from the journal, the edited one is {kept.name}",
            stacklevel=2,
        )
