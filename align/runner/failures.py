"""What goes wrong while a run works: which kind it is, how it is said in a line, and where its traceback is kept."""

from __future__ import annotations

import gc
import logging
import os
import sys
import traceback
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from align.rewards.errors import RewardError
from align.store.manifest import now

log = logging.getLogger("align")
"""At level DEBUG its messages are the tracebacks that ``errors.log`` keeps."""
NAME = "errors.log"


class DeviceLost(Exception):
    """The accelerator does not answer any more; only another process can go on."""


class CannotGoOn(Exception):
    """Whatever is tried next would fail as well; the message is one line for the user."""


class ErrorLog:
    """``errors.log`` of a run's folder: tracebacks, with the time and the items that they cost."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._known: set[str] = set()

    def keep(self, doing: str, error: BaseException, items: Iterable[int] = ()) -> bool:
        """Append the traceback of an error, or, where the same one is there already, a line; whether it is new."""
        trace = "".join(traceback.format_exception(error))
        new = trace not in self._known
        self._known.add(trace)
        numbers = ", ".join(map(str, items))
        head = f"{now()} {doing}{f', items {numbers}' if numbers else ''}: "
        text = f"{head}{said(error)}\n{trace if new else ''}"
        log.debug("%s", text.rstrip())
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        with suppress(OSError):  # what failed is told all the same
            handle = os.open(self.path, flags, 0o666)
            try:
                os.write(handle, text.encode("utf-8", "backslashreplace"))
            finally:
                os.close(handle)
        return new


def said(error: BaseException) -> str:
    """An error in one line; what rewards say is for people already."""
    try:
        text = str(error)
    except Exception:  # of a class whose author made a mistake there too
        text = ""
    lines = [line.strip()[:300] for line in text.splitlines() if line.strip()]
    if lines and isinstance(error, RewardError):
        return lines[0]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


_MEMORY = ("out of memory", "outofmemory", "can't allocate memory", "alloc_failed", "bad_alloc")
_LOST = ("CUDA error", "CUDA driver error", "cuDNN error", "device-side assert")


def out_of_memory(error: BaseException) -> bool:
    """Whether smaller calls may help."""
    return isinstance(error, MemoryError) or any(part in said(error).lower() for part in _MEMORY)


def device_lost(error: BaseException) -> bool:
    """Whether no later call can succeed in this process."""
    lost = isinstance(error, RuntimeError) and any(part in str(error) for part in _LOST)
    return lost and not out_of_memory(error)


def free_memory() -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
