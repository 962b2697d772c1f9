"""Hashes of files, each computed once; imports no torch."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from pathlib import Path

from align.reading import open_file


def file_hash(path: Path) -> str:
    """sha256 of a file, 64 hex digits, remembered while it is not touched."""
    # The hub's cache names large files by their sha256: many gigabytes need not be read for it.
    blob = path.resolve()
    if path.is_symlink() and blob.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", blob.name):
        return blob.name
    stat = path.stat()
    return _hash(path, stat.st_size, stat.st_mtime_ns)


def read_hash(path: Path) -> str:
    """sha256 of a file, read whole whatever its name says."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=4096)
def _hash(path: Path, size: int, changed: int) -> str:
    return read_hash(path)
