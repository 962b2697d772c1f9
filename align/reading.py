"""Reading the files that a user names.  Imports nothing heavy.

A name may stand for a pipe, a device or a socket, which would be waited for, read for ever or emptied, and a file may be
larger than the memory.  Both are an ``OSError`` here whose ``strerror`` says it, so that callers tell it as they tell a
file that is missing.
"""

from __future__ import annotations

import errno
import io
import json
import os
import stat
from pathlib import Path
from typing import Any

LARGEST = 256 << 20
"""Bytes of a file that is read whole, unless told otherwise."""
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_file(path: Path | str) -> io.BufferedReader:
    """Open a file for reading bytes, without waiting. Raises OSError: it is not there, or no ordinary file, or cannot be read."""
    _refuse(os.stat(path), path)  # before it is opened, as opening alone can have effects on a device
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _refuse(os.fstat(handle), path)
        return open(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_bytes(path: Path | str, largest: int = LARGEST) -> bytes:
    """The content of a file. Raises OSError as ``open_file``; or it holds more than ``largest`` bytes."""
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = (file.read(largest + 1) or b"") if size <= largest else b""
    if max(size, len(data)) > largest:
        raise OSError(errno.EFBIG, f"it is larger than {largest >> 10:,} kB", str(path))
    return data


def read_text(path: Path | str, encoding: str = "utf-8", largest: int = LARGEST) -> str:
    """The content of a text file, line ends as they are. Raises OSError as ``read_bytes``, UnicodeDecodeError."""
    return read_bytes(path, largest).decode(encoding)


def read_json(path: Path | str, largest: int = LARGEST) -> Any:
    """The value of a JSON file. Raises OSError as ``read_bytes``; ValueError: it is not JSON in UTF-8."""
    return parse_json(read_bytes(path, largest))


def parse_object(text: str | bytes, what: object) -> dict[str, Any]:
    """The object of a JSON text; ``what`` names the text. Raises ValueError."""
    try:
        content = parse_json(text)
    except ValueError as error:
        raise ValueError(f"{what} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{what} is not a JSON object")
    return content


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError, also for one that is nested too deep."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _refuse(facts: os.stat_result, path: Path | str) -> None:
    if not stat.S_ISREG(facts.st_mode):
        what = _KINDS.get(stat.S_IFMT(facts.st_mode), "something else")
        raise OSError(errno.EINVAL, f"it is {what}, not a file", str(path))
