"""What can go wrong when a reward is named or loaded; imports nothing heavy."""

from __future__ import annotations


class RewardError(Exception):
    """A reward cannot be had; the message is one line for the user."""


class UnknownReward(RewardError):
    """No reward has this name."""


class MissingWeights(RewardError):
    """A file that the reward needs is not there."""


class WrongWeights(RewardError):
    """A file is there, but it does not hold the tensors that the reward needs."""
