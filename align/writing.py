"""Replace a file as a whole: a reader sees the old content or the new one, never a part.

A temporary file is created exclusively in the target's own folder, written, flushed, synced, and renamed over
the target; then the folder is synced. Whatever goes wrong before the rename (full disk, exception,
interrupt), the temporary file is removed and the target is untouched. Only a kill or a power cut leaves a
temporary file behind; ``remove_leftovers`` deletes those.

Accepted: old and new content exist side by side for a moment (twice the space), and each write waits for the
disk. A target that is a symbolic link is itself replaced, so nothing is written outside the folder that was
named. Permissions of an existing file are kept; a new one follows the umask.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

SUFFIX = ".align-tmp"


@contextmanager
def replacing(path: Path | str, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a binary file that takes the place of ``path`` when the block ends without an exception; its folder must exist.

    ``durable`` waits for file and folder to reach the disk: False is for files that can be made again. Raises OSError
    from the file system; the old file is then intact and no temporary file stays behind.
    """
    target = Path(path)
    old = 0
    with suppress(FileNotFoundError):
        old = target.lstat().st_mode
        if not (stat.S_ISREG(old) or stat.S_ISLNK(old) or stat.S_ISDIR(old)):
            raise OSError(errno.EINVAL, "it is a device or a pipe, not a file", str(path))
    temporary = _temporary(target)
    try:
        with temporary.open("xb") as file:
            if stat.S_ISREG(old):
                os.chmod(temporary, old & 0o7777)
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        sync_folder(target.parent)


def write_new(path: Path | str, data: bytes) -> None:
    """Make a file of ``data``, as a whole, where there is none. Raises FileExistsError, OSError; nothing else is left then."""
    temporary = _temporary(Path(path))
    try:
        write_bytes(temporary, data)
        os.link(temporary, path)  # which, unlike renaming, replaces nothing
    finally:
        with suppress(OSError):
            temporary.unlink()
    sync_folder(Path(path).parent)


def _temporary(target: Path) -> Path:
    return target.with_name(f".{target.name[:100]}.{os.getpid()}-{secrets.token_hex(6)}{SUFFIX}")


def link(source: Path, path: Path) -> None:
    """Make ``path`` a second name of the file ``source``, durably. Raises OSError, with the old file of that name intact."""
    temporary = _temporary(path)
    try:
        os.link(os.path.realpath(source), temporary)
        os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()  # which renaming leaves where both names are of one file already
    sync_folder(path.parent)


def write_bytes(path: Path | str, data: bytes, *, durable: bool = True) -> None:
    """Replace ``path`` by ``data``, as a whole. Raises OSError, with the old file intact."""
    with replacing(path, durable=durable) as file:
        file.write(data)


def write_text(path: Path | str, text: str, *, durable: bool = True) -> None:
    """Replace ``path`` by ``text`` in UTF-8, line ends as given. Raises OSError, with the old file intact."""
    write_bytes(path, text.encode("utf-8"), durable=durable)


def sync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` survive a power cut, where the file system offers it."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_leftovers(folder: Path) -> int:
    """Delete temporary files that a killed process left in ``folder``, when no other writes there; returns their number."""
    removed = 0
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(SUFFIX) and entry.name.startswith("."):
                with suppress(OSError):
                    os.unlink(entry.path)
                    removed += 1
    return removed
