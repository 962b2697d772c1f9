"""Errors that mean the same everywhere; imports nothing."""

from __future__ import annotations


class WeightsError(Exception):
    """Weights cannot be used; the message is one line for the user."""


class MissingWeights(WeightsError):
    """A file that is needed is not there."""


class WrongWeights(WeightsError):
    """A file is there, but it does not hold what is needed."""
