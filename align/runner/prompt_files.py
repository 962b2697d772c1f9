"""Reading prompts from files: texts, JSON and tables."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from align.config.errors import ConfigError, suggestion
from align.reading import read_text

SEPARATORS = {".csv": ",", ".tsv": "\t"}
"""Of tables in text, by ending."""


def read_prompts(path: Path, column: str = "prompt", name: str | None = None) -> list[str]:
    """The prompts of a file, in order.

    A ``.json`` file holds a list, a ``.jsonl`` file a value a line; each entry is a text or an object with the key
    ``column``, so prompts may be empty and hold newlines.  A ``.csv``, ``.tsv`` or ``.parquet`` file is a table with
    named columns.  Any other file holds a prompt a line; empty lines are left out.

    Args:
        path: the file.
        column: where a table or an object has the prompt.
        name: what messages call the file; ``prompts.path=<path>`` by default.

    Raises:
        ConfigError: it cannot be read, or holds no such prompts.
    """
    name = name or f"prompts.path={path}"
    if path.suffix == ".parquet":
        rows = _parquet(path, column, name)
        return [_prompt(value, column, f"{name}, row {row}") for row, value in enumerate(rows, 1)]
    text = _text(path, name)
    if path.suffix in SEPARATORS:
        return _table(text, SEPARATORS[path.suffix], column, name)
    if path.suffix == ".json":
        entries = _json(text, name)
        if not isinstance(entries, list):
            raise ConfigError(f"{name} holds no list: give a JSON list of prompts")
        return [_prompt(entry, column, f"{name}, entry {place}") for place, entry in enumerate(entries, 1)]
    lines = [(place, line.removesuffix("\r")) for place, line in enumerate(text.split("\n"), 1)]
    filled = [(f"{name}, line {place}", line) for place, line in lines if line.strip()]
    if path.suffix == ".jsonl":
        return [_prompt(_json(line, place), column, place) for place, line in filled]
    return [line for _, line in filled]


def _text(path: Path, name: str) -> str:
    try:
        return read_text(path, "utf-8-sig")
    except FileNotFoundError:
        near = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise ConfigError(f"{name}: there is no such file{_near_file(path.name, near)}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name} is not UTF-8 (byte {error.start}): save it as UTF-8") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{name} cannot be read: {reason}; give another file") from None


def _near_file(name: str, others: list[str]) -> str:
    hint = suggestion(name, others)
    return hint.partition("?")[0] + "?" if "did you mean" in hint else "; give the path of a file"


def _table(text: str, separator: str, column: str, name: str) -> list[str]:
    """The cells of a column below a line of names; fields may be quoted, and then hold newlines."""
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        _check_column(column, list(reader.fieldnames or ()), name)
        return [_prompt(row[column], column, f"{name}, line {reader.line_num}") for row in reader]
    except csv.Error as error:
        raise ConfigError(f"{name} is no table after line {reader.line_num} ({error}): mend it") from None


def _parquet(path: Path, column: str, name: str) -> list[Any]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise ConfigError(f"{name} is read with pyarrow, which is not here: pip install pyarrow") from None
    try:
        with parquet.ParquetFile(path) as file:
            _check_column(column, file.schema_arrow.names, name)
            values: list[Any] = file.read(columns=[column]).column(column).to_pylist()
            return values
    except (ArrowException, OSError) as error:
        raise ConfigError(f"{name} cannot be read: {str(error).splitlines()[0]}; give another file") from None


def _check_column(column: str, columns: list[str], name: str) -> None:
    if column not in columns:
        which = f"one of {', '.join(columns)}" if columns else "of a file that has columns"
        raise ConfigError(f"{name} has no column {column!r}: give prompts.column=NAME, {which}")


def _json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{place} is not JSON ({error}): mend it") from None


def _prompt(entry: Any, column: str, place: str) -> str:
    value = entry.get(column) if isinstance(entry, dict) else entry
    if not isinstance(value, str):
        raise ConfigError(
            f'{place} has no prompt: give a text or an object with the key "{column}", or prompts.column=KEY'
        )
    return value
