"""Which pictures a command scores, and with which prompts: a folder or a table.

A row of a table is one picture and one prompt, so they are paired by what is written beside each other and by nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from align.config.convert import shown
from align.config.errors import ConfigError
from align.config.schema import PromptsConfig
from align.pictures import ENDINGS
from align.reading import read_text
from align.runner import row_files
from align.runner.prompt_files import Columns, columns_of, prompt_row
from align.runner.row_files import read_rows
from align.store.columns import TAG

TABLES = ("csv", "tsv", "jsonl", "json", "parquet")
"""Endings of tables that may be in a folder of pictures, as ``prompts.csv`` or ``metadata.csv``."""
IMAGE = ("image", "file_name")
"""Columns that name the picture; the second as in ``imagefolder`` data sets."""
LONGEST = 1 << 20
"""Bytes of a text beside a picture."""
SAMPLE = "sample"
"""The column that numbers the pictures of one prompt."""


@dataclass(frozen=True)
class Asked:
    """One picture and the text that it is scored with.

    Attributes:
        path: the picture.
        name: what rows call it: where it is in the folder or as the table has it, with "/".
        place: where it was asked for, for messages.
        prompt: None where nothing says it.
        seed, sample: as the table or the run has them; None where they do not.
        columns: further columns of its row.
    """

    path: Path
    name: str
    place: str
    prompt: str | None
    seed: int | None = None
    sample: int | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """What a command scores.

    Attributes:
        name: of the folder or table, without its ending.
        kind: what it is, for people.
        asked: the pictures, in the order of their rows.
        left: what is left out, for people; empty if nothing is.
        table: the file that names the prompts, where there is one.
    """

    name: str
    kind: str
    asked: list[Asked]
    left: str = ""
    table: Path | None = None


def find(pictures: Path, prompts: Path | None, config: PromptsConfig) -> Source:
    """What there is to score in a folder or table; ``prompts`` is a table for a folder, None: what is in it.

    Raises:
        ConfigError: there is nothing, or a table cannot be read or names pictures that are not there.
    """
    if not pictures.exists():
        raise ConfigError(
            f"score: there is no {pictures}: give a folder of pictures, a table or a run's folder"
        )
    if not pictures.is_dir():
        if prompts is not None:
            raise ConfigError(
                f"--prompts {prompts} goes with a folder of pictures, and {pictures} is none: leave it out"
            )
        if pictures.name.lower().endswith(ENDINGS):
            raise ConfigError(f"{pictures} is one picture: give its folder, or a table of image and prompt")
        asked = list(_of_table(pictures, pictures.parent, config))
        return Source(pictures.stem, "a table", asked, table=pictures)
    there, runs = _pictures(pictures)
    left = [some(runs, "folders") + " with results of their own"] if runs else []
    table = prompts or _table_of(pictures)
    if table is not None:
        asked = list(_of_table(table, pictures, config, inside=prompts is None))
        named = {os.path.normpath(one.path) for one in asked}
        if unnamed := [path.name for path in there if os.path.normpath(path) not in named]:
            left.append(f"{some(unnamed, 'pictures')} that {table.name} does not name")
    elif there:
        asked = [Asked(path, _name(path, pictures), str(path), _beside(path)) for path in there]
    else:
        raise ConfigError(f"{pictures} holds no pictures ({' '.join(ENDINGS)}): give a folder that does")
    return Source(pictures.resolve().name, "a folder", asked, "; ".join(left), table)


def _pictures(folder: Path) -> tuple[list[Path], list[str]]:
    """Pictures in a folder and those below it, by name, and the names of folders with results, which are passed over.

    Links to folders are not followed; hidden names are left out.
    """
    found: list[Path] = []
    runs: list[str] = []
    for home, folders, names in os.walk(folder, onerror=_closed):
        if "journal.jsonl" in names and "run.json" in names and Path(home) != folder:
            runs.append(_name(Path(home), folder))
            folders[:] = []
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(home, name) for name in names if name.lower().endswith(ENDINGS) and not name.startswith(".")
        ]
    return sorted(filter(os.path.isfile, found), key=lambda path: _name(path, folder)), runs


def _closed(error: OSError) -> None:
    raise ConfigError(
        f"{error.filename} cannot be read: {error.strerror}; mend it or take it away"
    ) from error


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _table_of(folder: Path) -> Path | None:
    """The table in a folder of pictures, if there is one. Raises ConfigError for several."""
    names = [f"{stem}.{ending}" for stem in ("prompts", "metadata") for ending in TABLES]
    found = [name for name in names if (folder / name).is_file()]
    if len(found) > 1:
        raise ConfigError(
            f"{folder} holds {' and '.join(found)}: say which names the prompts, --prompts {folder / found[0]}"
        )
    return folder / found[0] if found else None


def _beside(path: Path) -> str | None:
    """The text in the .txt file of a picture's name, if there is one. Raises ConfigError."""
    text = path.with_suffix(".txt")
    if not text.is_file():
        return None
    try:
        return read_text(text, "utf-8-sig", LONGEST).strip("\r\n")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{text} is not UTF-8 (byte {error.start}): save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{text} cannot be read: {error.strerror}; mend it or take it away") from None


def _of_table(table: Path, folder: Path, config: PromptsConfig, *, inside: bool = False) -> Iterator[Asked]:
    """The rows of a table whose pictures are in a folder, or wherever they say unless only ``inside`` is allowed."""
    rows = list(read_rows(table))
    names = list(dict.fromkeys(name for _, row in rows for name in row))
    image = next((name for name in IMAGE if name in names), None)
    if image is None:
        raise ConfigError(
            f"{table} has no column {' or '.join(IMAGE)}, which says whose prompt it is: rename one of {', '.join(names)}"
        )
    if config.column not in names and config.column != "prompt":
        raise ConfigError(
            f"{table} has no column {config.column!r}: give prompts.column=NAME, one of {', '.join(names)}"
        )
    columns = columns_of([name for name in names if name not in (image, SAMPLE)], config, str(table))
    blank = table.suffix.lower() in row_files.TABLES  # in which an empty cell is none
    there: dict[str, bool] = {}
    missing: list[str] = []
    for place, row in rows:
        name = row.get(image)
        if not isinstance(name, str) or not name or "\0" in name:
            raise ConfigError(f"{place} names no picture: fill the column {image}")
        path = folder / name
        if name not in there:
            there[name] = os.path.isfile(path)
            missing += [] if there[name] else [f"{shown(name)} ({place.rpartition(', ')[2]})"]
        if inside and there[name] and not path.resolve().is_relative_to(folder.resolve()):
            raise ConfigError(
                f"{place}: {shown(name)} is outside of {folder}: give --prompts {table} to allow that"
            )
        if blank and row.get(config.column) == "":
            row = {**row, config.column: None}
        yield _asked(path, name, place, row, columns)
    if missing:
        raise ConfigError(
            f"{table} names {some(missing, 'pictures')} that are not in {folder}: mend the column {image}"
        )


def _asked(path: Path, name: str, place: str, row: Mapping[str, Any], columns: Columns) -> Asked:
    text = row.get(columns.prompt)
    cells = {**row, columns.prompt: "" if text is None else text}
    found = prompt_row(cells, columns, place, blank=True)
    further = {} if found.negative is None else {"negative": found.negative}
    further |= {f"{TAG}{tag}": value for tag, value in found.tags.items()}
    sample = _sample(row.get(SAMPLE), place)
    return Asked(path, name, place, None if text is None else found.text, found.seed, sample, further)


def _sample(value: Any, place: str) -> int | None:
    """The number in a table's cell; None for an empty one."""
    if value is None or value == "" or value != value:
        return None
    try:
        if isinstance(value, bool) or int(value) != float(value) or not 0 <= int(value) < 2**63:
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        raise ConfigError(
            f"{place}: {SAMPLE}={shown(str(value))} is no whole number from 0: give one, or leave the column out"
        ) from None
    return int(value)


def some(names: Sequence[str], what: str) -> str:
    """How many there are and the first of them, such as "4 pictures (a.png, b.png, c.png, ...)"."""
    first = ", ".join(names[:3])
    return f"{len(names)} {what if len(names) > 1 else what.removesuffix('s')} ({first}{', ...' if len(names) > 3 else ''})"
