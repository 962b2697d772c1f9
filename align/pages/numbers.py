"""Numbers as people read them, on every page and in the terminal: what stands in a line has as many decimals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import pandas

DASH = "–"
"""What stands where there is no number."""
FINEST = 6
"""Decimals of small numbers; smaller ones have their first digit."""
_DUST = 1e-12


class Cell(NamedTuple):
    """A cell of a table: a text, and behind it what is smaller: an interval, a ratio, a count."""

    text: str
    small: str = ""
    sign: int = 0
    """Of a difference: 1 if its interval is above zero, -1 if below."""

    def __str__(self) -> str:
        return f"{self.text} {self.small}" if self.small else self.text


class Estimate(NamedTuple):
    """A mean with its interval, NaN where there is none, the mark behind it and a text behind both."""

    mean: float
    low: float = math.nan
    high: float = math.nan
    mark: str = ""
    behind: str = ""


def records(frame: pandas.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table, by column."""
    return [{str(name): cell for name, cell in row.items()} for row in frame.to_dict("records")]


def decimals(values: Iterable[float]) -> int:
    """How many decimals numbers have that are read together: none if all are whole, else by the largest.

    It has four digits, three below 1: 1234, 123.4, 12.34, 1.234, 0.123, 0.0123.
    """
    sizes = [abs(value) for value in values if math.isfinite(value) and abs(value) > _DUST]
    if all(size == round(size) for size in sizes):
        return 0
    place = math.floor(math.log10(max(sizes)))
    return min(max(FINEST, -place), max(0, (3 if place >= 0 else 2) - place))


def number(value: float, places: int | None = None, *, signed: bool = False) -> str:
    """A number of so many decimals, by default as it has alone; ``signed``: with a plus. A dash where there is none."""
    if math.isnan(value):
        return DASH
    text = f"{abs(value):.{decimals([value]) if places is None else places}f}"
    if float(text) == 0:
        return text
    return ("−" if value < 0 else "+" if signed else "") + text


def with_interval(mean: float, low: float, high: float, *, signed: bool = False) -> str:
    """A mean and its interval, such as "0.312 [0.301, 0.322]"."""
    return str(line({"": Estimate(mean, low, high)}, signed=signed)[""])


def line(estimates: Mapping[str, Estimate], *, signed: bool = False) -> dict[str, Cell]:
    """The cells of a line of a table, by their keys."""
    return block({"": estimates}, signed=signed)[""]


def block(lines: Mapping[str, Mapping[str, Estimate]], *, signed: bool = False) -> dict[str, dict[str, Cell]]:
    """The cells of several lines that are of one unit."""
    places = decimals(value for cells in lines.values() for one in cells.values() for value in one[:3])
    return {
        name: {key: _cell(one, places, signed) for key, one in cells.items()} for name, cells in lines.items()
    }


def _cell(one: Estimate, places: int, signed: bool) -> Cell:
    mean, low, high = (number(value, places, signed=signed) for value in one[:3])
    interval = "" if math.isnan(one.low) else f"[{low}, {high}]"
    sign = (one.low > 0) - (one.high < 0) if signed else 0
    return Cell(mean + one.mark, " ".join(part for part in (interval, one.behind) if part), sign)
