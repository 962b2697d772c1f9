"""``table.json``: which run is which row of a table, and why others have none."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from align import writing
from align.reading import read_json
from align.store.errors import ReportError

NAME = "table.json"
FORMAT = 1


@dataclass(frozen=True)
class FileRow:
    """A row; ``key`` is its name on the command line, ``label`` what the report calls it, unique in the table."""

    key: str
    label: str
    paper: str | None
    """Its name in the paper's file; None where the paper has no such row."""
    of_table: int | None
    """Number of the table that the paper has it in."""
    folder: str | None
    """Of its run, relative to the file's own folder; None where it is not run."""
    why_not: str
    note: str
    """In what the run is known to differ from the paper's."""
    training: int | None = None
    """Passes through the network that its weights were trained with; None where it is not of trained weights, or nobody knows."""


@dataclass(frozen=True)
class TableFile:
    """A table: its name, the paper's file and number if it is published, title, scale, key of the baseline, rows in order."""

    name: str
    paper: str | None
    number: int | None
    title: str
    scale: str
    baseline: str
    rows: tuple[FileRow, ...]

    def write(self, folder: Path) -> None:
        """Write it into a folder, which is made if missing. Raises OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        writing.write_text(folder / NAME, json.dumps({"format": FORMAT} | asdict(self), indent=2) + "\n")


def relative(folder: Path, base: Path) -> str:
    """A folder as seen from another, so that both can be moved together."""
    return Path(os.path.relpath(folder, base)).as_posix()


def read_table(folder: Path) -> TableFile | None:
    """The table of a folder; None where there is no ``table.json``. Raises ReportError: the file is damaged."""
    path = folder / NAME
    if not os.path.isfile(path):  # which takes any text for a path
        return None
    try:
        value: dict[str, Any] = read_json(path)
        if value.pop("format") != FORMAT:
            raise ValueError("another format")
        rows = tuple(FileRow(**row) for row in value.pop("rows"))
        table = TableFile(rows=rows, **value)
        kinds = {"rows": tuple, "number": int, "of_table": int, "training": int}
        for part in (table, *rows):
            for name, said in vars(part).items():
                may_lack = name in ("paper", "number", "of_table", "folder", "training")
                if not (isinstance(said, kinds.get(name, str)) or (may_lack and said is None)):
                    raise ValueError(f"{name} is {said!r:.40}")
        return table
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReportError(f"{path} is damaged ({error}): run `python -m align table` again") from error
