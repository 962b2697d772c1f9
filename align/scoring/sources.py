"""Which pictures a command scores, and with which prompts: a folder, a table, or the folder of an earlier run.

A row of a table is one picture and one prompt, so they are paired by what is written beside each other and by nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from align.config.errors import ConfigError
from align.pictures import ENDINGS
from align.runner.row_files import cell_text, read_rows, shown

TABLES = ("csv", "tsv", "jsonl", "json", "parquet")
"""Endings of tables that may be in a folder of pictures, as ``prompts.csv`` or ``metadata.csv``."""
IMAGE = ("image", "file_name")
"""Columns that name the picture; the second as in ``imagefolder`` data sets."""


@dataclass(frozen=True)
class Asked:
    """One picture and the text that it is scored with.

    Attributes:
        path: the picture.
        name: what rows call it: where it is in the folder or as the table has it, with "/".
        place: where it was asked for, for messages.
        prompt: null where nothing says it.
        seed, sample: as the table or the run has them; null where they do not.
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
        notes: what is left out, a line each.
        prompts: the table that names the prompts, where there is one.
    """

    name: str
    kind: str
    asked: list[Asked]
    notes: list[str]
    prompts: Path | None = None


def find(pictures: Path, prompts: Path | None, column: str) -> Source:
    """What there is to score.

    Args:
        pictures: a folder of pictures, or a table.
        prompts: a table for a folder; null: what is in it.
        column: where a table has the prompt.

    Raises:
        ConfigError: there is none, a table cannot be read, or names pictures that are not there.
    """
    if not pictures.exists():
        raise ConfigError(
            f"score: there is no {pictures}: give a folder of pictures, a table or a run's folder"
        )
    if not pictures.is_dir():
        if prompts is not None:
            raise ConfigError(
                f"--prompts goes with a folder of pictures, and {pictures} is none: leave it out"
            )
        asked = list(_of_table(pictures, pictures.parent, column))
        return Source(pictures.stem, "table", asked, [], pictures)
    there = _pictures(pictures)
    table = prompts or _table_of(pictures)
    name = pictures.resolve().name
    if table is not None:
        asked = list(_of_table(table, pictures, column, inside=prompts is None))
        return Source(name, "folder", asked, _unnamed(there, asked, table), table)
    if not there:
        raise ConfigError(f"{pictures} holds no pictures ({' '.join(ENDINGS)}): give a folder that does")
    asked = [Asked(path, _name(path, pictures), str(path), _beside(path)) for path in there]
    return Source(name, "folder", asked, [])


def _pictures(folder: Path) -> list[Path]:
    """Pictures in a folder and those below it, by name; links to folders are not followed, hidden names left out."""
    found = []
    for home, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(home, name) for name in names if name.lower().endswith(ENDINGS) and not name.startswith(".")
        ]
    return sorted((path for path in found if path.is_file()), key=lambda path: _name(path, folder))


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _table_of(folder: Path) -> Path | None:
    """The table in a folder of pictures, if there is one."""
    names = [f"{stem}.{ending}" for stem in ("prompts", "metadata") for ending in TABLES]
    found = [name for name in names if (folder / name).is_file()]
    if len(found) > 1:
        raise ConfigError(
            f"{folder} holds {' and '.join(found)}: say which names the prompts, --prompts {folder / found[0]}"
        )
    return folder / found[0] if found else None


def _beside(path: Path) -> str | None:
    """The text in the .txt file of a picture's name, if there is one."""
    text = path.with_suffix(".txt")
    if not text.is_file():
        return None
    try:
        return text.read_text(encoding="utf-8-sig").strip("\r\n")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{text} is not UTF-8 (byte {error.start}): save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{text} cannot be read: {error.strerror}; mend it or take it away") from None


def _unnamed(there: Sequence[Path], asked: Iterable[Asked], table: Path) -> list[str]:
    named = {os.path.normpath(one.path) for one in asked}
    left = [path.name for path in there if os.path.normpath(path) not in named]
    return [f"{some(left, 'pictures')} that {table.name} does not name"] if left else []


def _of_table(table: Path, folder: Path, column: str, *, inside: bool = False) -> Iterator[Asked]:
    """The rows of a table whose pictures are in a folder, or wherever they say.

    Args:
        table: the file.
        folder: what names of pictures are relative to.
        column: of the prompt.
        inside: refuse pictures elsewhere, as the table came with the folder.
    """
    rows = list(read_rows(table))
    names = list(dict.fromkeys(name for _, row in rows for name in row))
    image = next((name for name in IMAGE if name in names), None)
    if image is None:
        raise ConfigError(
            f"{table} has no column {' or '.join(IMAGE)}, which says whose prompt it is: rename one of {', '.join(names)}"
        )
    if column not in names and column != "prompt":
        raise ConfigError(
            f"{table} has no column {column!r}: give prompts.column=NAME, one of {', '.join(names)}"
        )
    there: dict[str, bool] = {}
    missing: list[str] = []
    for place, row in rows:
        name = row.pop(image, None)
        if not isinstance(name, str) or not name or "\0" in name:
            raise ConfigError(f"{place} names no picture: fill the column {image}")
        path = folder / name
        if inside and not path.resolve().is_relative_to(folder.resolve()):
            raise ConfigError(f"{place}: {name} is outside of {folder}: give --prompts {table} to allow that")
        if not there.setdefault(name, path.is_file()):
            missing.append(f"{name} ({place.rpartition(', ')[2]})")
            continue
        yield _asked(path, name, place, row, column)
    if missing:
        raise ConfigError(
            f"{table} names {some(missing, 'pictures')} that are not in {folder}: mend the column {image}"
        )


def _asked(path: Path, name: str, place: str, row: dict[str, Any], column: str) -> Asked:
    prompt = row.pop(column, None)
    if prompt is not None and not isinstance(prompt, str):
        raise ConfigError(f"{place}: {column} is no text: give one")
    numbers = {key: _number(row.pop(key, None), f"{place}: {key}") for key in ("seed", "sample")}
    try:
        columns = {key: cell_text(value) for key, value in row.items()}
    except ValueError as error:
        raise ConfigError(f"{place}: {error}, which is no tag: leave the column out") from None
    return Asked(path, name, place, prompt, columns=columns, **numbers)


def _number(value: Any, place: str) -> int | None:
    """A whole number of a table's cell; null for an empty one."""
    if value is None or value == "":
        return None
    try:
        if isinstance(value, bool) or int(value) != float(value) or not 0 <= int(value) < 2**63:
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        raise ConfigError(
            f"{place}={shown(str(value))} is no whole number from 0: give one, or none"
        ) from None
    return int(value)


def some(names: Sequence[str], what: str) -> str:
    """How many there are and the first of them, such as "3 pictures (a.png, b.png, ...)"."""
    first = ", ".join(map(shown, names[:3]))
    return f"{len(names)} {what if len(names) > 1 else what.removesuffix('s')} ({first}{', ...' if len(names) > 3 else ''})"
