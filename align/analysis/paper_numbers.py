"""Numbers that papers print, as data: ``align/analysis/paper/NAME.csv``, its first line the citation."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from align.store.errors import ReportError

FOLDER = Path(__file__).with_name("paper")
_TEXT = ("table", "method", "backbone", "seconds", "doubt")


@dataclass(frozen=True)
class PaperRow:
    """A row of a printed table: its number, the row's name, unique within it, and the model that it is of."""

    table: int
    method: str
    backbone: str
    values: Mapping[str, float]
    """Mean by metric (the file's column)."""
    seconds: float | None
    """Average time of a picture; None where the paper tells none."""
    doubt: str
    """Why the numbers may not be what was meant; empty where sources agree."""


@dataclass(frozen=True)
class Paper:
    """The tables of one paper: its citation, and its rows in their order."""

    citation: str
    rows: tuple[PaperRow, ...]

    def of_table(self, number: int) -> list[PaperRow]:
        return [row for row in self.rows if row.table == number]

    def row(self, number: int, method: str) -> PaperRow:
        """A row by table and name. Raises ReportError: there is none."""
        found = {row.method: row for row in self.of_table(number)}
        if method not in found:
            known = ", ".join(found)
            raise ReportError(f"the paper's table {number} has no row {method!r}: its rows are {known}")
        return found[method]


@cache
def load_paper(name: str) -> Paper:
    """The tables of a paper by the name of its file. Raises ReportError: there is no such file."""
    known = sorted(path.stem for path in FOLDER.glob("*.csv"))
    if name not in known:  # a name of somebody else's file, which may hold a path
        raise ReportError(f"no numbers of a paper {name!r} are known: there are {', '.join(known)}")
    first, _, rest = (FOLDER / f"{name}.csv").read_text(encoding="utf-8").partition("\n")
    rows = []
    for record in csv.DictReader(rest.splitlines()):
        values = {name: float(cell) for name, cell in record.items() if name not in _TEXT and cell}
        seconds = float(record["seconds"]) if record["seconds"] else None
        names = int(record["table"]), record["method"], record["backbone"]
        rows.append(PaperRow(*names, values, seconds, record["doubt"]))
    return Paper(first.lstrip("# "), tuple(rows))
