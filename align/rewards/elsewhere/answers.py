"""What a language model says of a picture, as a number.  What says none is a failed row, never 0."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from align.rewards.elsewhere.wire import Row

LEAST = 0.05
"""Of "yes" and "no" together: where they weigh less, something else was answered."""
_SCORE = re.compile(r"score\s*[:=]\s*([-+]?\d+(?:\.\d+)?)(?![\w.]*\w)", re.IGNORECASE)


def number(text: str, low: float, high: float) -> Row:
    """The last ``Score: <number>`` of an answer.

    None, two that differ in its line, or one that is not from ``low`` to ``high``: no score.
    """
    plain = re.sub(r"[*_`]", "", text)
    found = list(_SCORE.finditer(plain))
    if not found:
        return Row(None, f"the answer holds no line Score: <number>: {_shown(text)}")
    first = plain.rfind("\n", 0, found[-1].start()) + 1
    beside = {float(one[1]) for one in found if one.start() >= first}
    value = float(found[-1][1])
    if len(beside) > 1:
        return Row(
            None, f"the answer gives {' and '.join(f'{one:g}' for one in sorted(beside))}: {_shown(text)}"
        )
    if not low <= value <= high:
        return Row(None, f"the answer gives {value:g}, which is not from {low:g} to {high:g}")
    return Row(value)


def yes_no(tokens: Iterable[tuple[str, float]], *, normalise: bool) -> Row:
    """P(yes) from the log-probabilities of the first token's alternatives, or P(yes) over P(yes or no).

    A lower bound where there are only some of them.
    """
    sums = {"yes": 0.0, "no": 0.0}
    for token, logarithm in tokens:
        if (word := token.strip().lower()) in sums:
            sums[word] += math.exp(min(logarithm, 0.0))
    both = sums["yes"] + sums["no"]
    if not both >= LEAST:
        return Row(None, f"the answer is neither yes nor no (their probability is {both:.2g})")
    return Row(sums["yes"] / both if normalise else sums["yes"])


def hard_yes_no(text: str) -> Row:
    """1 or 0 by the first word of an answer."""
    word = re.match(r"\W*(yes|no)\b", text, re.IGNORECASE)
    if word is None:
        return Row(None, f"the answer begins with neither yes nor no: {_shown(text)}")
    return Row(float(word[1].lower() == "yes"), further={"hard": True})


def alternatives(choice: Any) -> Sequence[tuple[str, float]] | None:
    """Tokens that a chat answer might have begun with, and their log-probabilities; ``None`` where it does not tell them."""
    try:
        told = choice["logprobs"]["content"][0]["top_logprobs"]
        return [(str(one["token"]), float(one["logprob"])) for one in told]
    except (LookupError, TypeError, ValueError):
        return None


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= 80 else f"{line[:77]}...")
