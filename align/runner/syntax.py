"""Syntax of other programs in prompts, which here is text like any other: found, so that a run can say so."""

from __future__ import annotations

import re
from collections.abc import Iterable

from align.config.convert import shown
from align.store.csvfile import visible

FORMS = (
    r"\([^()]*:\s*[+-]?\d*\.?\d+\s*\)",  # (red:1.4)
    r"\(\([^()]*\)\)|\[\[[^\[\]]*\]\]",  # ((red)), [[red]]
    r"\\[()\[\]]",  # \(red\)
    r"\[[^\[\]]*[|:][^\[\]]*\]",  # [red|blue], [red:blue:0.5]
    r"\{[^{}]*\|[^{}]*\}",  # {red|blue}
    r"<\w+:[^<>]*>",  # <lora:x:1>
    r"\b(?:BREAK|AND)\b",
    r"\$\{[^{}]*\}",  # ${colour}
    r"__[\w/*-]+__",  # __colour__
    r"[\w)](?:\+\++|--+)(?!\w)|\)[+-]?\d*\.\d+",  # red++, (red)1.4
    r"::\s*-?\d",  # red::2
    r"(?<!\S)--[a-z]{2,}\b",  # --no text
    "[\x0b\x0c\x85\u2028\u2029]",  # line separators that end no line
)
_ANY = re.compile("|".join(f"(?:{form})" for form in FORMS))


def syntax_line(texts: Iterable[str]) -> str | None:
    """What a run's plan says of such syntax in its prompts; None if there is none."""
    examples: dict[str, None] = {}
    number = 0
    for text in texts:
        found = [match.group() for match in _ANY.finditer(text)]
        number += bool(found)
        examples |= dict.fromkeys(found[:3] if len(examples) < 3 else ())
    if not number:
        return None
    quoted = ", ".join(f'"{shown(visible(one))}"' for one in list(examples)[:3])
    return (
        f"{number} prompts or negatives hold {quoted}: read as plain text, "
        "nothing is weighted, replaced, loaded or split"
    )
