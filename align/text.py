"""Texts of others, as tokenizers and terminals take them."""

from __future__ import annotations

import re

_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


def readable(text: str) -> str:
    """A prompt with lone surrogates, which no UTF-8 text can hold, turned into "?"."""
    return text.encode("utf-8", "replace").decode("utf-8")


def printable(text: str) -> str:
    """What a terminal may be told: names of files, labels and columns cannot move its cursor or change its colours."""
    return _CONTROL.sub("?", text)
