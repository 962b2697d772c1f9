"""Exit codes of the command, and the error that stands for missing weights."""

from __future__ import annotations

DONE = 0
FAILED = 1
"""Some items failed, or the run had to stop early."""
CONFIGURATION = 2
MISSING_WEIGHTS = 3
INTERRUPTED = 130


class MissingWeights(Exception):
    """Files that a run needs are not there; the message lists them with the commands that mend it."""
