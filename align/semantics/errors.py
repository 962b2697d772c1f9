"""The error of this package; imports nothing."""

from __future__ import annotations


class GraphError(Exception):
    """A prompt's graph cannot be had or used; the message is one line for the user."""


class RefusedError(GraphError):
    """No graph of any prompt can be had this way: a wrong key, a model that is not there."""
