"""The error of a configuration: one line that names the option, the nearest valid names and the mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ConfigError(Exception):
    """The command or its configuration is wrong; the message is one line for the user."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def nearest(name: str, choices: Iterable[str], number: int = 3) -> list[str]:
    """The valid names most like a mistyped one, best first; empty if none is similar.

    A dotted name is also compared by its last part, so that ``steps`` finds ``sampler.steps``.
    """
    scored = sorted((-likeness(name.lower(), choice.lower()), choice) for choice in set(choices))
    near = [(-score, choice) for score, choice in scored if score <= -0.6]
    # What is much less alike than the best one is no candidate.
    return [choice for score, choice in near if score >= near[0][0] - 0.12][:number]


def likeness(name: str, choice: str) -> float:
    """How alike two names are, 0 to 1."""
    whole = difflib.SequenceMatcher(None, name, choice).ratio()
    part = difflib.SequenceMatcher(None, name.rpartition(".")[2], choice.rpartition(".")[2]).ratio()
    return max(whole, 0.98 * part if part >= 0.75 else 0.0)


def suggestion(name: str, choices: Iterable[str], what: str = "choices") -> str:
    """The end of a message about an unknown name: what is near, and all choices if they are few."""
    known = sorted(set(choices))
    near = nearest(name, known)
    text = f"; did you mean {' or '.join(near)}?" if near else ""
    if known and (len(known) <= 12 or not near):
        text += f" {what}: {', '.join(known)}" if near else f"; {what}: {', '.join(known)}"
    return text
