"""Ranges of options: each says what is wrong with a value and what would be right, or nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Between:
    """A number, or numbers, from ``low`` to ``high``, both allowed; ``below`` is for who gives less."""

    low: float
    high: float
    below: str = ""

    def mend(self, value: object) -> str | None:
        """What to give instead; ``None`` if the value is right."""
        values = value if isinstance(value, tuple) else (value,)
        if all(isinstance(number, int | float) and self.low <= number <= self.high for number in values):
            return None
        what = "numbers" if isinstance(value, tuple) else "a number"
        under = self.below and any(number < self.low for number in values)
        return (
            f"give {what} from {_short(self.low)} to {_short(self.high)}{f'; {self.below}' if under else ''}"
        )


@dataclass(frozen=True)
class Multiple:
    """A whole multiple of ``of``."""

    of: int

    def mend(self, value: object) -> str | None:
        if isinstance(value, int) and value % self.of == 0:
            return None
        return f"give a multiple of {self.of}"


@dataclass(frozen=True)
class Text:
    """A text of one of a few forms: a name that can be part of a folder's, a device, a hash."""

    form: Literal["name", "device", "sha256"]

    def mend(self, value: object) -> str | None:
        pattern, mend = {
            "name": (
                r"[A-Za-z0-9_][A-Za-z0-9_.+*-]{0,79}",
                "give a name of letters, digits, '_', '-' and '.'",
            ),
            "device": (r"auto|cpu|mps|cuda(:\d+)?", "give auto, cpu, cuda, cuda:<number> or mps"),
            "sha256": (r"[0-9a-f]{64}", "give 64 hex digits or null"),
        }[self.form]
        return None if re.fullmatch(pattern, str(value)) else mend


def _short(number: float) -> str:
    """In full where it is whole: a rounded bound would be beyond itself."""
    return str(number) if isinstance(number, int) else f"{number:.15g}"
