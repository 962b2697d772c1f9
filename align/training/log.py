"""What a training tells: a JSON line for each event in ``log.jsonl``, a line for people, and boards if they are asked for."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from align import writing
from align.training.checkpoint import Progress
from align.training.ranks import Ranks

LOG = "log.jsonl"


class Board(Protocol):
    """Somewhere else that figures go."""

    def show(self, figures: Mapping[str, float], update: int) -> None: ...

    def close(self) -> None: ...


class Log:
    """Of one training; only the first process writes and speaks.

    Args:
        folder: where the file is.
        ranks: the processes that train together.
        boards: where figures go beside.
    """

    def __init__(self, folder: Path, ranks: Ranks | None = None, boards: Sequence[Board] = ()) -> None:
        self.path, self.first, self.boards = folder / LOG, (ranks or Ranks()).first, boards
        self.began = time.monotonic()
        self.lines = self.done_before = 0
        self.told_of_collapse = False

    def begin(self, lines: int, rounds: int) -> None:
        """Cut the file back to where the checkpoint was made, after so many ``lines`` and ``rounds``."""
        self.lines, self.done_before = lines, rounds
        if self.first:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            there = self.path.read_bytes().splitlines(keepends=True) if lines else []
            writing.write_bytes(self.path, b"".join(there[:lines]))

    def say(self, text: str) -> None:
        """A line for people."""
        if self.first:
            print(f"align: {text}", file=sys.stderr, flush=True)

    def update(self, progress: Progress, figures: Mapping[str, float]) -> None:
        """A step of the optimiser."""
        self._line("update", progress, {"update": progress.update, **figures})
        if self.first:
            for board in self.boards:
                board.show(figures, progress.update)

    def examination(self, progress: Progress, names: Sequence[str]) -> None:
        """What the judge found; one line when it collapses."""
        found = dict(zip(names, progress.means, strict=True))
        mean, error = progress.fallen
        self._line(
            "examination",
            progress,
            {**found, "difference": mean, "error": error, "best": progress.best_round},
        )
        if self.first:
            for board in self.boards:
                board.show({f"held out {name}": value for name, value in found.items()}, progress.update)
        told = "  ".join(f"{name} {value:.4g}" for name, value in found.items())
        self.say(
            f"round {progress.round}, held out: {told}  ({names[0]} {mean:+.3g}, standard error {error:.2g}, "
            f"from the start; best round {progress.best_round})"
        )
        if progress.collapsed and not self.told_of_collapse:
            self.told_of_collapse = True
            self.say(
                f"it collapses: {names[0]} has fallen by {-mean:.3g} of held-out pictures; best/ holds round "
                f"{progress.best_round}; give a smaller training.learning_rate in another run.folder"
            )

    def round(self, progress: Progress, examples: int, rounds: int) -> None:
        """A round that is done."""
        seconds = time.monotonic() - self.began
        self._line("round", progress, {"examples": examples, "seconds": round(seconds, 1)})
        left = seconds / (progress.round - self.done_before) * (rounds - progress.round)
        told = "  ".join(f"{name} {value:.4g}" for name, value in progress.figures.items())
        self.say(f"round {progress.round} of {rounds}: {examples} examples  {told}  {left / 60:.0f} min left")

    def end(self, progress: Progress) -> None:
        """The last line."""
        skipped = f", {progress.skipped} skipped as their gradient was not finite" if progress.skipped else ""
        self.say(f"{progress.update} updates from {progress.examples} examples{skipped}")
        for board in self.boards:
            board.close()

    def _line(self, what: str, progress: Progress, figures: Mapping[str, Any]) -> None:
        if self.first:
            line = json.dumps({"what": what, "round": progress.round, **figures})
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
            self.lines += 1
