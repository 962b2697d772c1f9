"""Prompts as tokenizers take them."""

from __future__ import annotations


def readable(text: str) -> str:
    """A prompt with lone surrogates, which no UTF-8 text can hold, turned into "?"."""
    return text.encode("utf-8", "replace").decode("utf-8")
