"""Who works in a run folder.

`.lock` holds the records of the processes that have the folder open: one, or with `shared` several. It is
read and changed only under an advisory lock of the operating system on the file itself (`guard`), so that
decisions about it never race; the record, not the advisory lock, says who has the folder, because a record
can name its owner.

A record whose process is gone counts for nothing: the next process takes the folder over. A process is
recognised by host, boot, process id and start time, so a process id that was given out again is not mistaken
for the owner. Whether a process on another host lives cannot be known from here; it is believed to.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from align.results.errors import StoreError, as_store_error


@dataclass(frozen=True)
class Owner:
    """A process that has a folder open."""

    host: str
    pid: int
    start: int | None
    """Start time of the process in ticks since boot; None where the system does not tell."""
    boot: str | None
    token: str
    """Tells apart two stores that one process has open."""
    shared: bool = False

    @classmethod
    def current(cls, *, shared: bool = False, token: str | None = None) -> Owner:
        """The record of this process."""
        pid = os.getpid()
        token = token or secrets.token_hex(8)
        return cls(socket.gethostname(), pid, _start_time(pid), _boot_id(), token, shared)

    @classmethod
    def from_record(cls, record: Any) -> Owner | None:
        """The owner that a JSON value describes; None when it describes none."""
        try:
            start, boot = record["start"], record["boot"]
            return cls(
                str(record["host"]),
                int(record["pid"]),
                None if start is None else int(start),
                None if boot is None else str(boot),
                str(record["token"]),
                bool(record["shared"]),
            )
        except (KeyError, TypeError, ValueError):
            return None

    def alive(self) -> bool:
        """False only when the process is known to be gone."""
        if self.host != socket.gethostname():
            return True
        if self.boot is not None and _boot_id() not in (None, self.boot):
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        start = _start_time(self.pid)
        return self.start is None or start is None or start == self.start


def _start_time(pid: int) -> int | None:
    """Start of a process in ticks since boot; -1 for one that has ended and waits for its parent."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return -1 if fields[0] in "ZX" else int(fields[19])


def _boot_id() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None


class FolderLock:
    """The `.lock` of one folder, seen from one process."""

    def __init__(self, folder: Path, *, shared: bool, token: str | None = None) -> None:
        self.path = folder / ".lock"
        self.owner = Owner.current(shared=shared, token=token)

    def acquire(self, entering: Callable[[bool], None]) -> None:
        """Enter the folder.

        Args:
            entering: called inside the guard with True when nobody else is in the folder; when it raises, the
                folder is not entered.

        Raises:
            StoreError: another process has it and not both are shared, or `.lock` cannot be written.
        """
        with self.guard() as handle:
            others = self._others(handle)
            for other in others:
                if not (self.owner.shared and other.shared):
                    raise StoreError(self._refusal(other))
            try:
                entering(not others)
                self._write(handle, [*others, self.owner])
            except BaseException:
                if not others:
                    self.path.unlink(missing_ok=True)
                raise

    def release(self, leaving: Callable[[bool], None]) -> None:
        """Leave the folder, whatever `leaving` raises; the last process to leave removes `.lock`.

        Args:
            leaving: called inside the guard with True when nobody else is in the folder.
        """
        with self.guard() as handle:
            others = self._others(handle)
            try:
                leaving(not others)
            finally:
                if others:
                    self._write(handle, others)
                else:
                    self.path.unlink(missing_ok=True)

    def strike(self, token: str) -> None:
        """Remove the record of another process that is known to be gone. Raises StoreError."""
        with self.guard() as handle:
            others = [other for other in self._others(handle) if other.token != token]
            self._write(handle, [*others, self.owner])

    @contextmanager
    def guard(self) -> Iterator[int]:
        """Hold the folder's advisory lock: at most one process is inside such a block at a time."""
        with as_store_error(f"write to {self.path.parent}"):
            handle = self._open_locked()
        try:
            yield handle
        finally:
            os.close(handle)

    def _open_locked(self) -> int:
        while True:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(handle), os.stat(self.path)):
                        return handle
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)  # the file was removed while this process waited for it

    def _others(self, handle: int) -> list[Owner]:
        text = os.pread(handle, 1 << 20, 0).decode("utf-8", errors="replace")
        try:
            records, _ = json.JSONDecoder().raw_decode(text)
        except ValueError:  # empty, or its writer was killed while writing and holds nothing any more
            return []
        owners = [Owner.from_record(record) for record in (records if isinstance(records, list) else [])]
        return [owner for owner in owners if owner and owner.token != self.owner.token and owner.alive()]

    def _write(self, handle: int, owners: list[Owner]) -> None:
        data = json.dumps([asdict(owner) for owner in owners]).encode() + b"\n"
        with as_store_error(f"write {self.path}"):
            os.pwrite(handle, data, 0)
            os.ftruncate(handle, len(data))

    def _refusal(self, other: Owner) -> str:
        text = f"{self.path.parent} is in use by process {other.pid} on {other.host}"
        if other.host != socket.gethostname():
            text += f" (if that one is gone, delete {self.path})"
        if self.owner.shared != other.shared:
            return f"{text}; run.shared=true lets both work, but both must have been started with it"
        return f"{text}; wait for it to end, or start both with run.shared=true to let both work"
