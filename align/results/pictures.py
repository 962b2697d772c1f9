"""The pictures of a run folder: names, bytes, and whether they are still what was written."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from align.pictures import PictureError, read_picture
from align.reading import read_bytes
from align.results import atomic

if TYPE_CHECKING:
    from PIL.Image import Image

Verify = Literal["quick", "full"]


def picture_name(key: str, seed: int, sample: int) -> str:
    """File name of an item's picture. It never depends on the prompt's text or its place in the list."""
    return f"seed{seed}-{sample}-{key[:16]}.png"


def png_bytes(picture: bytes | Image) -> bytes:
    """A picture as PNG; the same picture always gives the same bytes. Bytes are taken to be PNG already."""
    if isinstance(picture, bytes | bytearray | memoryview):
        return bytes(picture)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def save_picture(folder: Path, name: str, picture: bytes | Image) -> dict[str, Any]:
    """Write a picture durably and return its record: name, size, sha256, mtime_ns. Raises OSError."""
    data = png_bytes(picture)
    path = folder / name
    atomic.write_bytes(path, data)
    return {
        "name": name,
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "mtime_ns": path.stat().st_mtime_ns,
    }


def saved_picture(path: Path | str) -> tuple[bytes, Image]:
    """The bytes of a picture that is to be shown or measured again, and what they hold, as RGB.

    Raises:
        PictureError: it is not there, damaged, too large, or no picture.
    """
    try:
        data = read_bytes(path)
    except FileNotFoundError:
        raise PictureError("picture missing") from None
    except (OSError, ValueError) as error:  # or it is no path at all
        raise PictureError(f"it cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return data, read_picture(data)


def intact(folder: Path, record: dict[str, Any], verify: Verify) -> bool:
    """Whether the picture of a record is still there and the same.

    "full" reads and hashes it. "quick" reads it only if its modification time is not the recorded one (it was
    touched, or the folder copied) and otherwise trusts its size: that notices every missing, truncated,
    emptied or edited picture at the cost of one `stat`, but not bits that rot on the disk.
    """
    path = f"{folder}{os.sep}{record['name']}"  # which is much faster than a Path
    try:
        stat = os.stat(path)
        if stat.st_size != record["size"]:
            return False
        if verify == "quick" and stat.st_mtime_ns == record["mtime_ns"]:
            return True
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == record["sha256"]
    except OSError:
        return False
