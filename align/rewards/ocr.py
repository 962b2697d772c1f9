"""How much of the text that a prompt asks for a recogniser reads in the picture: Flow-GRPO's formula, and a reward of it.

The text is what stands in the first pair of straight double quotes.  Spaces and case do not count, what else is read costs
nothing where the text is read in one piece, and the order of words does count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

Line = tuple[str, float]
"""A text and the confidence in it; lines are in the order in which a recogniser reads."""

if TYPE_CHECKING:
    from PIL.Image import Image

    Recogniser = Callable[[Image], Sequence[Line]]
    """Reads a picture in RGB."""


def quoted(prompt: str) -> str | None:
    """The text in the first quotes of a prompt, up to its end where they are not closed; None if it has none."""
    parts = prompt.split('"')
    return parts[1] if len(parts) > 1 else None


def plain(text: str) -> str:
    """What of a text counts: everything but spaces, in lower case."""
    return text.replace(" ", "").lower()


def accuracy(target: str, lines: Sequence[Line]) -> float:
    """1 less the edits from what was read to the target, per character of the target and at most 1.

    Raises ValueError for a target in which nothing counts.
    """
    wanted = plain(target)
    if not wanted:
        raise ValueError("there is no text to be read")
    read = plain("".join(text for text, confidence in lines if confidence > 0))
    edits = 0 if wanted in read else min(distance(read, wanted), len(wanted))
    return 1 - edits / len(wanted)


def distance(one: str, other: str) -> int:
    """Levenshtein's: the fewest characters put in, left out or replaced that make one text the other."""
    row = list(range(len(other) + 1))
    for number, mine in enumerate(one, 1):
        above, row[0] = row[0], number
        for place, theirs in enumerate(other, 1):
            above, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, above + (mine != theirs))
    return row[-1]


def target_of(prompt: str, metadata: Mapping[str, Any], column: str | None) -> str | None:
    """The text that a picture shall show: that of a column, or else the quoted one; None if it has none that counts."""
    found = quoted(prompt) if column is None else metadata.get(column)
    return found if isinstance(found, str) and plain(found) else None


def lacks(prompt: str, tags: Mapping[str, str], options: Mapping[str, Any]) -> str | None:
    """What a prompt lacks, see ``RewardSpec``."""
    column = options.get("target")
    if target_of(prompt, tags, column) is not None:
        return None
    if column is not None:
        return f"its column {column!r} holds no text: fill it in, or give judges.ocr.target=NAME of another"
    return 'it has no text in straight double quotes ("..."): quote it, or give judges.ocr.target=COLUMN that holds it'
