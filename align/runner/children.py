"""Runs in processes of their own, several at a time."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console

from align.runner.exits import DONE, INTERRUPTED
from align.runner.interrupts import Interrupts


class Children:
    """Runs in processes of their own, several at a time; an interruption reaches all of them."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.living: set[subprocess.Popen[str]] = set()
        self.stopped = False
        self.lock = threading.Lock()

    def run(self, commands: Mapping[str, Sequence[str]], jobs: int) -> int:
        """Run ``python -m align`` with some arguments for each folder; returns the worst exit code."""
        with Interrupts(), ThreadPoolExecutor(jobs) as pool:
            waiting = [pool.submit(self._one, folder, command) for folder, command in commands.items()]
            try:
                codes = [one.result() for one in waiting]
            except KeyboardInterrupt:
                self.console.print("interrupted; what is under way ends after its commit", markup=False)
                self.stop()
                return INTERRUPTED
        return max(codes, default=DONE)

    def _one(self, folder: str, command: Sequence[str]) -> int:
        began = time.perf_counter()
        with self.lock:
            if self.stopped:
                return INTERRUPTED
            # In a session of its own, so that Ctrl-C is told to it once, by us.
            child = subprocess.Popen(
                [sys.executable, "-m", "align", *command],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="backslashreplace",
                start_new_session=True,
            )
            self.living.add(child)
        _, said = child.communicate()
        with self.lock:
            self.living.discard(child)
        code = child.returncode if child.returncode >= 0 else 1
        last = (said.strip().splitlines() or [f"ended by signal {-child.returncode}"])[-1]
        end = "" if code == DONE else f": exit {code}, {last}"
        self.console.print(f"{Path(folder).name}  {time.perf_counter() - began:.0f} s{end}", markup=False)
        return code

    def stop(self) -> None:
        """Let nothing more start, and tell what runs to end after its commit."""
        with self.lock:
            self.stopped = True
            for child in self.living:
                child.send_signal(signal.SIGINT)
