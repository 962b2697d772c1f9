"""How a command ends: its exit code, and the one line that says why."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from align.config.errors import ConfigError
from align.errors import WeightsError
from align.output import tame

DONE = 0
FAILED = 1
"""Some items failed, or the run had to stop early."""
CONFIGURATION = 2
MISSING_WEIGHTS = 3
INTERRUPTED = 130

log = logging.getLogger("align")


class FilesMissing(Exception):
    """Files that a run needs are not there; the message lists them with the commands that mend it."""


def tell(error: BaseException) -> int:
    """Say on stderr why a command, or one of its runs, ended; returns the exit code.  Its traceback is for ``-v``."""
    if isinstance(error, KeyboardInterrupt):
        _say("align: interrupted")
        return INTERRUPTED
    log.debug("%s", type(error).__name__, exc_info=error)
    if isinstance(error, FilesMissing):
        _say(str(error))
        return MISSING_WEIGHTS
    if isinstance(error, ConfigError):
        _say(f"align: {error}")
        return CONFIGURATION
    if isinstance(error, WeightsError):
        _say(f"align: {' '.join(str(error).split())}")
        return MISSING_WEIGHTS
    if isinstance(error, MemoryError):
        _say("align: this machine has not enough memory for it; -v shows where it ended")
        return FAILED
    said = " ".join(str(error).split())
    said = f"{said[:300]}..." if len(said) > 300 else said
    what = f"{type(error).__name__}: {said}" if said else type(error).__name__
    _say(f"align: internal error: {what}; the same command with -v shows where it happened")
    return FAILED


@contextmanager
def verbose(wanted: bool) -> Iterator[None]:
    """Inside the block, show on stderr what ``align`` logs, with tracebacks, if that is wanted."""
    if not wanted:
        yield
        return
    handler, level = logging.StreamHandler(sys.stderr), log.level
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def _say(text: str) -> None:
    """Names of files and values of others are in it, which shall not steer the terminal."""
    print(tame(text), file=sys.stderr, flush=True)
