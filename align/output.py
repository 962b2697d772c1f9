"""What the command prints gets through, or is lost in silence, and never stops the work.

A stream that cannot encode a character shows another one for it.  A stream that is closed, full or that nobody reads any
more swallows the rest, and the exit code says so.
"""

from __future__ import annotations

import codecs
import io
import os
import re
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

PLAIN = str.maketrans(
    {"–": "-", "−": "-", "—": "-", "×": "x", "·": ".", "…": ".", "†": "+", "─": "-", "\u00a0": " "}
)
"""Of what tables are made of, in characters that every stream has; one for one, so that columns stay."""
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f]")


def tame(text: str) -> str:
    """A text with names and values of others, which shall not steer the terminal: control characters, line ends aside, as escapes."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found.group()):02x}", text)


def can_print(text: str) -> bool:
    """Whether standard output can encode a text."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


class Printed:
    """What became of standard output; ``lost`` is why not all of it could be written."""

    lost: OSError | None = None


@contextmanager
def printing() -> Iterator[Printed]:
    """Let everything inside the block print without an error."""
    codecs.register_error("align", _replace)
    codecs.register_error("align_bytes", _keep_bytes)
    _open_closed()
    printed, own = Printed(), (sys.stdout, sys.stderr)
    sys.stdout, sys.stderr = _tolerant(sys.stdout, printed), _tolerant(sys.stderr, Printed())
    try:
        yield printed
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = own


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(PLAIN)
    return "".join(letter if letter.isascii() else "?" for letter in text), error.end


def _keep_bytes(error: UnicodeError) -> tuple[str | bytes, int]:
    """As ``_replace``, but the bytes of a file's name that is not text are shown as they are, where a stream does so."""
    if isinstance(error, UnicodeEncodeError) and "\udc80" <= error.object[error.start] <= "\udcff":
        return bytes([ord(error.object[error.start]) - 0xDC00]), error.start + 1
    return _replace(error)


def _open_closed() -> None:
    """Put the null device where standard streams are closed: the next file that is opened would take their place."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which takes the lowest number that is free
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115


def _tolerant(stream: TextIO, printed: Printed) -> TextIO:
    """A stream that writes to the same place and has no errors; one that is no file only encodes everything."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    kinds = {"strict": "align", "surrogateescape": "align_bytes"}
    errors = kinds.get(stream.errors or "strict", stream.errors)
    raw = getattr(stream.buffer, "raw", stream.buffer)  # unbuffered, there is no other
    if not isinstance(raw, io.FileIO):
        stream.reconfigure(errors=errors)
        return stream
    try:
        stream.flush()
    except OSError as error:
        printed.lost = error
    lines = stream.line_buffering or raw.isatty()
    return _Text(
        io.BufferedWriter(_Pipe(raw, printed), 1 if raw is stream.buffer else io.DEFAULT_BUFFER_SIZE),
        encoding=stream.encoding,
        errors=errors,
        line_buffering=lines,
        write_through=stream.write_through,
    )


class _Text(io.TextIOWrapper):
    """Its file is not its own, so it does not close it."""

    def close(self) -> None:
        self.flush()


class _Pipe(io.RawIOBase):
    """A file that always takes what it is given."""

    def __init__(self, raw: io.FileIO, printed: Printed) -> None:
        super().__init__()
        self._raw = raw
        self._printed = printed

    def write(self, data: Any) -> int:
        # All of it counts as done once the file has failed.
        if self._printed.lost is None:
            try:
                while (written := self._raw.write(data)) is None:  # somebody made it non-blocking
                    select.select([], [self._raw], [])
                return written
            except OSError as error:
                self._printed.lost = error
        return len(data)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._raw.isatty()

    def fileno(self) -> int:
        return self._raw.fileno()
