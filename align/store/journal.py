"""The journal: one JSON object a line, only ever appended to.

A line counts once its line end is there. An append is one write under an advisory lock, synced before it
returns; a write that fails half-way (full disk) is cut off again, and a torn end that a killed process left
is cut off before anything is appended, so a torn line never swallows the next one.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from align.reading import open_file, parse_json

log = logging.getLogger(__name__)


class Journal:
    """An open journal. ``position`` is where ``new_records`` goes on reading."""

    def __init__(self, path: Path, *, reading: bool = False) -> None:
        """Open or create the file; to read it only, it has to be there. Raises OSError."""
        self.path = path
        self.position = 0
        flags = os.O_RDONLY | os.O_NONBLOCK if reading else os.O_RDWR | os.O_APPEND | os.O_CREAT
        self._handle = os.open(path, flags | os.O_NOFOLLOW, 0o666)

    def append(self, record: dict[str, Any]) -> None:
        """Add ``record`` durably. Raises OSError, with the journal as before."""
        # Pure ASCII, so that any text, lone surrogates too, survives.
        line = json.dumps(record, allow_nan=False, separators=(",", ":")).encode("ascii") + b"\n"
        with self._mended() as size:
            try:
                written = 0
                while written < len(line):
                    written += os.write(self._handle, line[written:])
                os.fsync(self._handle)
            except BaseException:
                with suppress(OSError):
                    os.ftruncate(self._handle, size)
                raise

    def mend(self) -> None:
        """Cut off a torn last line. Raises OSError."""
        with self._mended():
            pass

    def new_records(self) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """Whole lines that this object has not read yet, as (offset, length, record).

        A line that is no JSON object is passed over with a warning: what it recorded is simply done again.
        """
        with open_file(self.path) as file:
            file.seek(self.position)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                offset, self.position = self.position, self.position + len(line)
                try:
                    record = parse_json(line)
                except ValueError:
                    record = None
                if isinstance(record, dict):
                    yield offset, len(line), record
                else:
                    log.warning("%s: ignored an unreadable line at byte %d", self.path, offset)

    def read(self, offset: int, length: int) -> dict[str, Any]:
        """The record at a place that ``new_records`` gave."""
        return dict(json.loads(os.pread(self._handle, length, offset)))

    def close(self) -> None:
        os.close(self._handle)

    @contextmanager
    def _mended(self) -> Iterator[int]:
        """The file locked, a torn last line cut off, and its size."""
        fcntl.flock(self._handle, fcntl.LOCK_EX)
        try:
            size = end = os.fstat(self._handle).st_size
            while end and os.pread(self._handle, 1, end - 1) != b"\n":
                start = max(0, end - 65536)
                end = start + os.pread(self._handle, end - start, start).rfind(b"\n") + 1
            if end != size:
                os.ftruncate(self._handle, end)
                os.fsync(self._handle)
                log.warning("%s: dropped a torn last line of %d bytes", self.path, size - end)
            yield end
        finally:
            fcntl.flock(self._handle, fcntl.LOCK_UN)
