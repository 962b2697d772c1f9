"""Telling unsafe prompts by a short list of English words.

Crude in both directions: harmless uses of a word count, other languages and euphemisms do not.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from functools import cache
from pathlib import Path

_WORDS = Path(__file__).parent / "unsafe_words.txt"


def is_unsafe(prompt: str) -> bool:
    """Whether a prompt has a word or phrase of the list, whatever its case or typeface."""
    return _pattern().search(unicodedata.normalize("NFKC", prompt).casefold()) is not None


@cache
def words() -> tuple[str, ...]:
    """The list, in lower case."""
    lines = _WORDS.read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


@cache
def words_hash() -> str:
    """sha256 of the list, 64 hex digits: which list a run went by."""
    return hashlib.sha256("\n".join(words()).encode()).hexdigest()


@cache
def _pattern() -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words()))})(?!\w)")
