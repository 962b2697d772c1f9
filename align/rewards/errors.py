"""What can go wrong when a reward is named or loaded; imports nothing heavy."""

from __future__ import annotations

from align.errors import MissingWeights, WrongWeights

__all__ = ["MissingWeights", "RewardError", "UnknownReward", "WrongAnswer", "WrongWeights"]


class RewardError(Exception):
    """A reward cannot be had; the message is one line for the user."""


class UnknownReward(RewardError):
    """No reward has this name."""


class WrongAnswer(RewardError, ValueError):
    """What a reward returned is not one number a picture."""
