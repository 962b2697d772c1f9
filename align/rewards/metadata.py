"""What is known of a prompt besides its words: the tags of its row, with JSON read.  Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def metadata_of(tags: Mapping[str, str]) -> dict[str, Any]:
    """Tags as values: lists and objects are JSON in them, everything else a text."""
    found: dict[str, Any] = {}
    for name, text in tags.items():
        found[name] = text
        if text[:1] in ("[", "{"):
            try:
                found[name] = json.loads(text)
            except (ValueError, RecursionError):
                continue
    return found
