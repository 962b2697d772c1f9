"""Ctrl-C and SIGTERM: the first ends the run after the commit in progress, the second ends it at once."""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from align.runner.exits import INTERRUPTED

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def end_at_signals() -> None:
    """Let both signals end the process with one line, before there is work or after it.

    Where modules are imported or the interpreter ends, an exception would be swallowed, or be a traceback.
    """
    for number in SIGNALS:
        if _is_ours(signal.getsignal(number)):
            signal.signal(number, _stop)
    atexit.register(_ignore)  # which is last of all, as it is the first that is registered


def _ignore() -> None:
    """When nothing but the interpreter is left to end, the exit code is decided."""
    for number in SIGNALS:
        if _is_ours(signal.getsignal(number)):
            signal.signal(number, signal.SIG_IGN)


def _stop(number: int, frame: FrameType | None) -> None:
    with suppress(OSError):
        os.write(2, b"align: interrupted\n")
    os._exit(INTERRUPTED)


def _is_ours(handler: Any) -> bool:
    """Whether nobody else handles a signal."""
    nobody = (signal.SIG_DFL, signal.default_int_handler, _stop)
    return handler in nobody or isinstance(getattr(handler, "__self__", None), Interrupts)


class Interrupts:
    """While entered, both signals raise ``KeyboardInterrupt``, but never inside ``finishing``.

    One may be entered inside another, which then knows afterwards what the inner one has seen.  A signal that
    somebody else handles already stays theirs: submitit lets SIGTERM pass, which SLURM sends before the signal
    on which a job is submitted again.
    """

    def __init__(self) -> None:
        self.seen = False
        self._depth = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if _is_ours(signal.getsignal(number)):
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._before.items():
            outer = getattr(handler, "__self__", None)
            if isinstance(outer, Interrupts):
                outer.seen = outer.seen or self.seen
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.seen:
            os._exit(INTERRUPTED)
        self.seen = True
        if self._depth == 0:
            raise KeyboardInterrupt

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """Let the block end before an interruption takes effect; other threads than the main one have none."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
        if self.seen and self._depth == 0:
            raise KeyboardInterrupt
