"""Live progress with rate and time left: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from align.output import tame

EVERY = 10.0
"""Least seconds between two plain lines."""


class Listener:
    """Who is told how the work goes on; by itself it does nothing about it."""

    def sampling(self, pictures: int, share: float) -> None:
        """A group of pictures is in flight and this share of its work is done."""

    def committed(self, *, failed: bool) -> None:
        """One more item is kept."""

    def measured(self, pictures: int) -> None:
        """So many more pictures have been measured."""

    def say(self, text: str) -> None:
        """A line for the user."""


class Meter(Listener):
    """How far a run is.  The rate counts what this process made, with the shares of pictures in flight.

    Of ``total`` items ``done`` were finished before; ``backlog`` of these are to be measured before anything is made.
    """

    def __init__(
        self,
        console: Console,
        total: int,
        done: int,
        backlog: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console = console
        self.total = total
        self.done = done
        self.failed = 0
        self._clock = clock
        self._began = self._said = clock()
        self._before = done
        self._backlog = backlog
        self._measured = 0
        self._in_flight = 0.0
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Meter:
        if self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"))
            self._bar = Progress(*columns, console=self.console, transient=True)
            self._task = self._bar.add_task("sampling", total=self.total, completed=self.done, told="")
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif kind is None and self.done + self.failed > self._before:
            self._line()

    def sampling(self, pictures: int, share: float) -> None:
        self._in_flight = pictures * min(max(share, 0.0), 1.0)
        self._show()

    def committed(self, *, failed: bool) -> None:
        self._in_flight = max(self._in_flight - 1, 0.0)
        self.failed += failed
        self.done += not failed
        self._show()

    def measured(self, pictures: int) -> None:
        """Once there is no backlog this is part of the making."""
        if self._measured >= self._backlog:
            return
        self._measured += pictures
        if self._measured < self._backlog:
            self._show()
            return
        if self._bar is None:
            self.say(self._backlog_told())
        self._began = self._said = self._clock()

    def say(self, text: str) -> None:
        self.console.print(tame(text), markup=False, highlight=False, soft_wrap=True)

    def told(self) -> str:
        """Items done, rate and time left, such as "12/32, 1.3 a second, 16 s left"."""
        if self._measured < self._backlog:
            return self._backlog_told()
        made = self.done + self.failed - self._before + self._in_flight
        left = max(self.total - self.done - self.failed - self._in_flight, 0)
        parts = [f"{self.done + self.failed}/{self.total}", *self._speed(made, left)]
        if self.failed:
            parts.append(f"{self.failed} failed")
        return ", ".join(parts)

    def _backlog_told(self) -> str:
        measured = min(self._measured, self._backlog)
        speed = self._speed(measured, self._backlog - measured)
        return ", ".join([f"{measured}/{self._backlog} measured", *speed])

    def _speed(self, made: float, left: float) -> list[str]:
        rate = made / max(self._clock() - self._began, 1e-9)
        if made <= 0:
            return []
        pace = f"{rate:.2g} a second" if rate >= 0.1 else f"{1 / rate:.3g} s each"
        return [pace, f"{_time(left / rate)} left"]

    def _show(self) -> None:
        if self._bar is not None and self._task is not None:
            completed = self.done + self.failed + self._in_flight
            self._bar.update(self._task, completed=completed, told=self.told())
        elif self._clock() - self._said >= EVERY:
            self._line()

    def _line(self) -> None:
        self._said = self._clock()
        self.say(self.told())


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
    )
