"""Prompts from files: a text a line, or the rows of a table or of JSON objects, with what they say beside the prompt."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from align.config.convert import shown
from align.config.errors import ConfigError, suggestion
from align.config.schema import PromptsConfig
from align.runner.row_files import LINES, TABLES, cell_text, read_entries

NEGATIVE = ("negativeprompt", "negative", "negprompt")
"""What a column of negative prompts is called with ``prompts.negative_column=auto``, whatever its case, ``_`` and spaces."""
SEED = ("seed",)
"""Likewise for ``prompts.seed_column=auto``."""
SEEDS = 2**63


@dataclass(frozen=True)
class PromptRow:
    """A prompt of a set; ``negative`` and ``seed`` are its own, ``tags`` what else its row says."""

    text: str
    negative: str | None = None
    seed: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    place: str = ""


@dataclass(frozen=True)
class Columns:
    """What the columns of a file are for: names, or None where it has none such."""

    prompt: str
    negative: str | None
    seed: str | None
    tags: tuple[str, ...]

    def all(self) -> list[str]:
        named = (self.prompt, self.negative, self.seed, *self.tags)
        return [name for name in dict.fromkeys(named) if name is not None]


def read_prompts(path: Path, config: PromptsConfig, name: str | None = None) -> list[PromptRow]:
    """The prompts of a file (see ``row_files``), in order; ``name`` is what messages call it. Raises ConfigError."""
    name = name or f"prompts.path={path}"

    def choose(found: list[str]) -> list[str]:
        if config.column not in found:
            raise ConfigError(
                f"{name} has no column {config.column!r}: give prompts.column=NAME, one of {', '.join(found)}"
            )
        return columns_of(found, config, name).all()

    entries = list(read_entries(path, name, choose))
    if path.suffix.lower() in LINES:
        _check_lines(*entries[0], config.column)
    found = dict.fromkeys(key for _, entry in entries if isinstance(entry, dict) for key in entry)
    columns = columns_of(list(found), config, name)
    blank = path.suffix.lower() not in TABLES
    return [prompt_row(entry, columns, place, blank=blank) for place, entry in entries]


def _check_lines(place: str, first: str, column: str) -> None:
    """Refuse a file of lines that is a table or holds objects, whose syntax would be drawn; raises ConfigError."""
    if re.match(r"""\s*(\[\s*)?\{\s*("|\Z)|\s*\[\s*("|\Z)""", first):
        raise ConfigError(f"{place} is JSON, and each line would be a prompt: name the file .json or .jsonl")
    cells = [cell.strip(' "') for cell in re.split(r"[,;|\t]", first)]
    if cells == [column] or (column in cells and not any(" " in cell for cell in cells)):
        raise ConfigError(
            f"{place} is the header of a table, and each line would be a prompt: name the file .csv or .tsv, or take it out"
        )


def columns_of(found: Sequence[str], config: PromptsConfig, name: str) -> Columns:
    """What the columns that a file has are for. Raises ConfigError."""
    negative = _column(found, config.column, "negative_column", config.negative_column, NEGATIVE, name)
    seed = _column(found, config.column, "seed_column", config.seed_column, SEED, name)
    rest = tuple(column for column in found if column not in (config.column, negative, seed))
    for column in config.tag_columns or ():
        if column not in found:
            raise ConfigError(
                f"{name} has no column {column!r}: give prompts.tag_columns=[...] of what it has"
                f"{suggestion(column, found, 'columns')}"
            )
    return Columns(config.column, negative, seed, rest if config.tag_columns is None else config.tag_columns)


def _column(
    found: Sequence[str], prompt: str, option: str, wanted: str | None, usual: Sequence[str], name: str
) -> str | None:
    if wanted is None:
        return None
    if wanted != "auto":
        if wanted not in found:
            raise ConfigError(
                f"{name} has no column {wanted!r}: give prompts.{option}=NAME, or null for none"
                f"{suggestion(wanted, found, 'columns')}"
            )
        return wanted
    fitting = [
        column for column in found if column != prompt and re.sub(r"[\W_]", "", column).casefold() in usual
    ]
    if len(fitting) > 1:
        raise ConfigError(
            f"{name} has the columns {' and '.join(map(repr, fitting))}: give prompts.{option}=NAME, or null for none"
        )
    return fitting[0] if fitting else None


def prompt_row(entry: Any, columns: Columns, place: str, *, blank: bool) -> PromptRow:
    """An entry as a prompt; ``blank`` if it may be empty. Raises ConfigError."""
    cells = entry if isinstance(entry, dict) else {columns.prompt: entry}
    text = cells.get(columns.prompt)
    if not isinstance(text, str):
        raise ConfigError(
            f'{place} has no prompt: give a text or an object with the key "{columns.prompt}", or prompts.column=KEY'
        )
    if not blank and not text.strip():
        raise ConfigError(
            f'{place} has an empty prompt: fill it in or leave the row out (a .jsonl file may hold "")'
        )
    tags: dict[str, str] = {}
    for column in columns.tags:
        try:
            if tag := cell_text(cells.get(column)).strip():
                tags[column] = tag
        except ValueError as error:
            raise ConfigError(
                f"{place}, column {column!r}: {error}; give prompts.tag_columns=[...] without it"
            ) from None
    return PromptRow(
        text, _negative(cells, columns.negative, place), _seed(cells, columns.seed, place), tags, place
    )


def _negative(cells: Mapping[str, Any], column: str | None, place: str) -> str | None:
    value = cells.get(column) if column is not None else None
    if value is None or value == "" or value != value:
        return None
    if not isinstance(value, str):
        raise ConfigError(
            f"{place}: {column}={shown(str(value))} is no text: "
            "give a negative prompt, or prompts.negative_column=null to keep it as a tag"
        )
    return value if value.strip() else None


def _seed(cells: Mapping[str, Any], column: str | None, place: str) -> int | None:
    value = cells.get(column) if column is not None else None
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        return None
    text = value.strip() if isinstance(value, str) else "" if isinstance(value, bool) else str(value)
    # Tables of whole numbers with gaps are written as 7.0.
    found = re.fullmatch(r"0*([0-9]{1,19})(\.0*)?", text)
    if found is None or int(found.group(1)) >= SEEDS:
        raise ConfigError(
            f"{place}: {column}={shown(str(value))} is no seed: give a whole number from 0 to {SEEDS - 1}, "
            "an empty cell for the run's seed, or prompts.seed_column=null to keep it as a tag"
        )
    return int(found.group(1))
