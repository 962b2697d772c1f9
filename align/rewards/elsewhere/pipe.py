"""``reward=process``: a judge in another interpreter, with the protocol of ``reward=http`` on a pipe.

A request is a line of JSON on the process's standard input, its answer a line on the standard output; what it prints to standard
error is the user's to see.  ``{"version": 1, "health": true}`` asks for ``{"model": ..., "version": ...}``.
"""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Any

from align.reading import parse_json
from align.rewards.elsewhere.wire import PROTOCOLS, VERSION, Answer, Item
from align.rewards.errors import CannotJudge

LONGEST = 16 << 20
"""Bytes of an answer."""


class Process:
    """A process that judges, started at the first question and again when it has ended, at most ``retries`` times for a question.

    ``timeout`` are the seconds for an answer, the time to load a model included.
    """

    def __init__(self, command: Sequence[str], reward: str, timeout: float = 600.0, retries: int = 1) -> None:
        self.command, self.reward = list(command), reward
        self.timeout, self.retries = timeout, retries
        self._child: _Child | None = None

    def __call__(self, items: Sequence[Item]) -> Answer:
        """Ask about some items. Raises CannotJudge."""
        protocol = PROTOCOLS["align"]
        found = self._asked(protocol.body(self.reward, items))
        try:
            return protocol.read(found, self.reward, len(items))
        except CannotJudge as error:
            self.close()  # what else is in the pipe belongs to no question
            raise CannotJudge(f"{self._named} {error}") from None

    def health(self) -> dict[str, str]:
        """What the process says of itself. Raises CannotJudge."""
        found = self._asked({"version": VERSION, "health": True})
        told = found if isinstance(found, dict) else {}
        return {
            name: str(told[name]) for name in ("model", "version") if isinstance(told.get(name), str | int)
        }

    def close(self) -> None:
        """End the process; another question starts it again."""
        if self._child is not None:
            self._child.end()
            self._child = None

    @property
    def _named(self) -> str:
        return f"judges.process.command={' '.join(self.command)!r:.60}"

    def _asked(self, body: dict[str, Any]) -> Any:
        line = json.dumps(body).encode("ascii") + b"\n"
        for attempt in range(self.retries + 1):
            try:
                if self._child is None:
                    self._child = _Child(self.command)
                found = self._child.ask(line, self.timeout)
                break
            except (OSError, TimeoutError, EOFError) as error:
                self.close()
                what = getattr(error, "strerror", None) or error
                if attempt == self.retries or isinstance(
                    error, TimeoutError | FileNotFoundError | PermissionError
                ):
                    raise CannotJudge(f"{self._named} cannot be used: {what}") from None
        try:
            return parse_json(found)
        except ValueError:
            self.close()
            text = "".join(
                one if one.isprintable() else " " for one in found[:200].decode("utf-8", "replace")
            )
            raise CannotJudge(
                f"{self._named} answers what is no JSON: {text.strip() or '(nothing)'}"
            ) from None


class _Child:
    """A process and the lines that it prints, read by a thread."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.lines: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True).start()

    def ask(self, line: bytes, seconds: float) -> bytes:
        """The line that answers a line. Raises OSError, EOFError: the process has ended, TimeoutError."""
        assert self.process.stdin is not None
        # Of a process that does not read, the pipe is full before a picture is in it.
        writing = threading.Thread(target=self._write, args=(self.process.stdin, line), daemon=True)
        writing.start()
        try:
            found = self.lines.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError(f"no answer in {seconds:g} s") from None
        if len(found) > LONGEST:
            raise EOFError(f"it answers more than {LONGEST >> 20} MB")
        if not found.endswith(b"\n"):
            raise EOFError(f"it ended with {self.process.wait()} before it answered")
        return found

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()

    def _write(self, pipe: IO[bytes], line: bytes) -> None:
        with suppress(OSError, ValueError):  # it has ended, which the thread that waits is told
            pipe.write(line)
            pipe.flush()

    def _read(self, pipe: IO[bytes]) -> None:
        with suppress(OSError, ValueError):
            while (line := pipe.readline(LONGEST + 2)).endswith(b"\n"):
                self.lines.put(line)
            self.lines.put(line)
            return
        self.lines.put(b"")
