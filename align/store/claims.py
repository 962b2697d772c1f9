"""Who works on which item, when several processes share a folder.

A claim is a file ``claims/<key>`` made by exclusive creation that holds the record of its owner. It is made,
judged and taken over only while the folder's guard is held (see lock), so two processes never both find an
item free. A claim of a process that is gone is void; so is one that cannot be read, since its writer was
killed inside the guard.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from align.reading import read_json
from align.store.lock import FolderLock, Owner


class Claims:
    """The claims of one folder; every method is to be called under the folder's guard."""

    def __init__(self, folder: Path, lock: FolderLock) -> None:
        self.folder = folder / "claims"
        self.owner = lock.owner
        self._alive = lock.alive

    def take(self, key: str) -> bool:
        """Claim ``key``; True when it is now (or was already) this process's. Raises OSError."""
        path = self.folder / key
        holder = self._holder(path)
        if holder is not None:
            return holder.token == self.owner.token
        self.folder.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        with path.open("x", encoding="utf-8") as file:
            json.dump(asdict(self.owner), file)
        return True

    def drop(self, key: str) -> None:
        with suppress(OSError):
            (self.folder / key).unlink()

    def void(self, token: str) -> None:
        """Give up all that another process claimed, which is known to be gone. Raises OSError."""
        for path in self.folder.glob("*"):
            holder = self._holder(path)
            if holder is not None and holder.token == token:
                path.unlink(missing_ok=True)

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _holder(self, path: Path) -> Owner | None:
        try:
            owner = Owner.from_json(read_json(path))
        except (FileNotFoundError, ValueError):
            return None
        return owner if owner is not None and self._alive(owner) else None
