"""What can go wrong when a reward is named or loaded; imports nothing heavy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RewardError(Exception):
    """A reward cannot be had; the message is one line for the user."""


class UnknownReward(RewardError):
    """Nothing has this name."""

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        near = difflib.get_close_matches(name, known := sorted(known), n=3, cutoff=0.4) or known
        super().__init__(f"unknown {what} {name!r}; did you mean {', '.join(near)}?")


class WrongAnswer(RewardError, ValueError):
    """What a reward returned is not one number a picture."""


class CannotJudge(RewardError):
    """Whoever judges pictures does not answer, or answers what is no answer: nothing else could be judged now either."""
