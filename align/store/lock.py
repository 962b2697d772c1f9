"""Who works in a run folder.

``.lock`` holds the records of the processes that have the folder open: one, or with ``shared`` several. It is
read and changed only under an advisory lock of the operating system on the file itself (``guard``), so that
decisions about it never race.

A record whose process is gone counts for nothing: the next process takes the folder over. Each process holds an
advisory lock on a file of its own, ``.alive/<token>``, for as long as it lives; whoever can take that lock knows
that the process is gone, whatever its number means here: containers that share a host name may count theirs
apart. The number in the record only names the owner in messages. Of a process on a host of another name, whose
locks may not reach this far, nothing is known: it is believed to live. Where the file system has no such locks
at all a folder is refused.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from align.store.errors import StoreError, as_store_error

_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK}


@dataclass(frozen=True)
class Owner:
    """A process that has a folder open."""

    host: str
    pid: int
    token: str
    """Tells apart two stores that one process has open; names the file that is locked while this one is."""
    shared: bool = False
    locked: bool = True
    """Whether it holds a lock for life; older versions did not."""

    @classmethod
    def from_json(cls, record: Any) -> Owner | None:
        """The owner that a JSON value describes; None when it describes none."""
        try:
            host, pid, token = str(record["host"]), int(record["pid"]), str(record["token"])
            shared, locked = bool(record["shared"]), bool(record.get("locked", False))
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
            return None
        return cls(host, pid, token, shared, locked) if re.fullmatch(r"[0-9A-Za-z]+", token) else None


class FolderLock:
    """The ``.lock`` of one folder, seen from one process."""

    def __init__(self, folder: Path, *, shared: bool, token: str | None = None) -> None:
        self.path = folder / ".lock"
        self.owner = Owner(socket.gethostname(), os.getpid(), token or secrets.token_hex(8), shared)
        self._life: int | None = None

    def alive(self, owner: Owner) -> bool:
        """False only when the process is known to be gone; to be called under the guard."""
        if owner.token == self.owner.token or owner.host != self.owner.host:
            return True
        if not owner.locked:
            return _running(owner.pid)
        path = self._life_file(owner.token)
        try:
            handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StoreError(
                f"cannot read {path}: {error.strerror}; remove it, or choose another run.folder"
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    def _life_file(self, token: str) -> Path:
        return self.path.parent / ".alive" / token

    def _begin_life(self, alone: bool) -> None:
        """Take the lock that says that this process lives. Raises OSError."""
        path = self._life_file(self.owner.token)
        if alone:
            shutil.rmtree(path.parent, ignore_errors=True)
        path.parent.mkdir(exist_ok=True)
        self._life = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
        fcntl.flock(self._life, fcntl.LOCK_EX)

    def _end_life(self, alone: bool) -> None:
        path = self._life_file(self.owner.token)
        with suppress(OSError):
            path.unlink(missing_ok=True)
        if alone:  # files of processes that were killed may be left
            shutil.rmtree(path.parent, ignore_errors=True)
        if self._life is not None:
            os.close(self._life)
            self._life = None

    def acquire(self, entering: Callable[[bool], None]) -> None:
        """Enter the folder. Raises StoreError: another process has it and not both are shared, or it cannot be written.

        ``entering`` is called inside the guard with True when nobody else is in the folder; when it raises, the
        folder is not entered.
        """
        with self.guard() as handle:
            others = self._others(handle)
            for other in others:
                if not (self.owner.shared and other.shared):
                    raise StoreError(self._refusal(other))
            try:
                with as_store_error(f"write to {self.path.parent}"):
                    self._begin_life(not others)
                entering(not others)
                self._write(handle, [*others, self.owner])
            except BaseException:
                self._end_life(not others)
                if not others:
                    self.path.unlink(missing_ok=True)
                raise

    def release(self, leaving: Callable[[bool], None]) -> None:
        """Leave the folder, whatever ``leaving`` raises, which is called as ``entering``; the last to leave removes ``.lock``."""
        with self.guard() as handle:
            others = self._others(handle)
            try:
                leaving(not others)
            finally:
                self._end_life(not others)
                if others:
                    self._write(handle, others)
                else:
                    self.path.unlink(missing_ok=True)

    def strike(self, token: str) -> None:
        """Remove the record of another process that is known to be gone. Raises StoreError."""
        with self.guard() as handle:
            with suppress(OSError):
                self._life_file(token).unlink(missing_ok=True)
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
            except BaseException as error:
                os.close(handle)
                if isinstance(error, OSError) and error.errno in _NO_LOCKS:
                    raise StoreError(
                        f"{self.path.parent} is on a file system without file locks, which keep two processes apart: "
                        "choose run.folder on another disk, or mount this one with flock"
                    ) from error
                raise
            os.close(handle)  # the file was removed while this process waited for it

    def _others(self, handle: int) -> list[Owner]:
        text = os.pread(handle, 1 << 20, 0).decode("utf-8", errors="replace")
        try:
            records, _ = json.JSONDecoder().raw_decode(text)
        except (ValueError, RecursionError):
            return []  # empty, or its writer was killed while writing and holds nothing any more
        owners = [Owner.from_json(record) for record in (records if isinstance(records, list) else [])]
        return [one for one in owners if one and one.token != self.owner.token and self.alive(one)]

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


def _running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return True
