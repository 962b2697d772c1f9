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
    """A row of a printed table.

    Attributes:
        table: its number.
        method: the row's name, unique within the table.
        backbone: the model that the row is of.
        values: mean by metric (the file's column).
        seconds: average time of a picture; None where the paper tells none.
        doubt: why the numbers may not be what was meant; empty where sources agree.
    """

    table: int
    method: str
    backbone: str
    values: Mapping[str, float]
    seconds: float | None
    doubt: str


@dataclass(frozen=True)
class Paper:
    """The tables of one paper: its citation, and its rows in their order."""

    citation: str
    rows: tuple[PaperRow, ...]

    def of_table(self, number: int) -> list[PaperRow]:
        """The rows of one table."""
        return [row for row in self.rows if row.table == number]

    def row(self, number: int, method: str) -> PaperRow:
        """A row by table and name.

        Raises:
            ReportError: there is none.
        """
        found = [row for row in self.of_table(number) if row.method == method]
        if not found:
            known = ", ".join(row.method for row in self.of_table(number))
            raise ReportError(f"the paper's table {number} has no row {method!r}: its rows are {known}")
        return found[0]


@cache
def load_paper(name: str) -> Paper:
    """The tables of a paper by the name of its file.

    Raises:
        ReportError: there is no such file.
    """
    known = sorted(path.stem for path in FOLDER.glob("*.csv"))
    if name not in known:  # a name of somebody else's file, which may hold a path
        raise ReportError(f"no numbers of a paper {name!r} are known: there are {', '.join(known)}")
    first, _, rest = (FOLDER / f"{name}.csv").read_text(encoding="utf-8").partition("\n")
    records = list(csv.DictReader(rest.splitlines()))
    return Paper(first.lstrip("# "), tuple(_row(record) for record in records))


def _row(record: Mapping[str, str]) -> PaperRow:
    values = {name: float(cell) for name, cell in record.items() if name not in _TEXT and cell}
    seconds = float(record["seconds"]) if record["seconds"] else None
    return PaperRow(
        int(record["table"]), record["method"], record["backbone"], values, seconds, record["doubt"]
    )
