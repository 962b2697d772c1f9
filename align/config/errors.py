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
    known = sorted(set(choices))
    lower = {choice.lower(): choice for choice in reversed(known)}
    whole = difflib.get_close_matches(name.lower(), lower, n=number, cutoff=0.6)
    leaves: dict[str, list[str]] = {}
    for choice in known:
        leaves.setdefault(choice.rpartition(".")[2].lower(), []).append(choice)
    parts = difflib.get_close_matches(name.rpartition(".")[2].lower(), leaves, n=number, cutoff=0.75)
    found = [lower[match] for match in whole] + [choice for part in parts for choice in leaves[part]]
    return list(dict.fromkeys(found))[:number]


def suggestion(name: str, choices: Iterable[str], what: str = "choices") -> str:
    """The end of a message about an unknown name: what is near, and all choices if they are few."""
    known = sorted(set(choices))
    near = nearest(name, known)
    text = f"; did you mean {' or '.join(near)}?" if near else ""
    if known and (len(known) <= 12 or not near):
        text += f" {what}: {', '.join(known)}" if near else f"; {what}: {', '.join(known)}"
    return text
