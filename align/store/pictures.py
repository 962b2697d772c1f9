"""The pictures of a run folder: names, bytes, and whether they are still what was written."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from align import writing

if TYPE_CHECKING:
    from PIL.Image import Image

Verify = Literal["quick", "full"]


@dataclass(frozen=True)
class Original:
    """A picture that is there already and is kept byte by byte."""

    path: Path
    data: bytes
    """What was read from the file."""
    mtime_ns: int
    """When it had last been changed before it was read."""


def picture_name(key: str, seed: int, sample: int, ending: str = ".png") -> str:
    """File name of an item's picture. It never depends on the prompt's text or its place in the list."""
    return f"seed{seed}-{sample}-{key[:16]}{ending}"


def png_bytes(picture: bytes | Image) -> bytes:
    """A picture as PNG; the same picture always gives the same bytes. Bytes are taken to be PNG already."""
    if isinstance(picture, bytes | bytearray | memoryview):
        return bytes(picture)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def save_picture(folder: Path, name: str, picture: bytes | Image | Original) -> dict[str, Any]:
    """Write a picture durably and return its stamp: name, size, sha256, mtime_ns. Raises OSError."""
    path = folder / name
    data = picture.data if isinstance(picture, Original) else png_bytes(picture)
    if not (isinstance(picture, Original) and _link(picture, path)):
        writing.write_bytes(path, data)
    return {
        "name": name,
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "mtime_ns": path.stat().st_mtime_ns,
    }


def is_stamp(value: Any) -> bool:
    """Whether a value of a journal is a picture's stamp (see ``save_picture``): one that names a file of the folder itself, whoever wrote it."""
    if not isinstance(value, dict):
        return False
    name, sha256, numbers = value.get("name"), value.get("sha256"), (value.get("size"), value.get("mtime_ns"))
    return (
        isinstance(name, str)
        and name not in ("", ".", "..")
        and not {"/", os.sep, "\0"} & set(name)
        and isinstance(sha256, str)
        and all(isinstance(number, int) for number in numbers)
    )


def _link(original: Original, path: Path) -> bool:
    """Make ``path`` a second name of a file, if the disk can do that and the file is still what was read."""
    try:
        writing.link(original.path, path)
        facts = path.stat()
    except OSError:
        return False
    return (facts.st_size, facts.st_mtime_ns) == (len(original.data), original.mtime_ns)


def intact(folder: Path, stamp: dict[str, Any], verify: Verify) -> bool:
    """Whether the picture of a stamp is still there and the same.

    "full" reads and hashes it. "quick" reads it only if its modification time is not the recorded one (it was
    touched, or the folder copied) and otherwise trusts its size: that notices every missing, truncated,
    emptied or edited picture at the cost of one ``stat``, but not bits that rot on the disk.
    """
    path = f"{folder}{os.sep}{stamp['name']}"  # which is much faster than a Path
    try:
        facts = os.lstat(path)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size != stamp["size"]:
            return False  # a link, too: it may lead out of the folder
        if verify == "quick" and facts.st_mtime_ns == stamp["mtime_ns"]:
            return True
        with open(path, "rb") as file:
            found: str = hashlib.file_digest(file, "sha256").hexdigest()
            return found == str(stamp["sha256"])
    except OSError:
        return False
