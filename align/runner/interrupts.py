"""Ctrl-C and SIGTERM: the first ends the run after the commit in progress, the second ends it at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from align.runner.exits import INTERRUPTED


class Interrupts:
    """While entered, both signals raise ``KeyboardInterrupt``, but never inside ``finishing``.

    A signal that somebody else handles already stays theirs: submitit lets SIGTERM pass, which SLURM sends before the signal
    on which a job is submitted again.
    """

    def __init__(self) -> None:
        self.seen = False
        self._depth = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.seen:
            os._exit(INTERRUPTED)
        self.seen = True
        if self._depth == 0:
            raise KeyboardInterrupt

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """Let the block end before an interruption takes effect."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
        if self.seen and self._depth == 0:
            raise KeyboardInterrupt
