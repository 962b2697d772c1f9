"""Prompts from files: a text a line, or a column of a table or of JSON objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from align.config.errors import ConfigError
from align.runner.row_files import read_entries


def read_prompts(path: Path, column: str = "prompt", name: str | None = None) -> list[str]:
    """The prompts of a file, in order.

    Args:
        path: the file, see ``row_files``; its entries are texts or objects with the key ``column``.
        column: where a table or an object has the prompt.
        name: what messages call the file; ``prompts.path=<path>`` by default.

    Raises:
        ConfigError: it cannot be read, or holds no such prompts.
    """
    name = name or f"prompts.path={path}"

    def choose(columns: list[str]) -> list[str]:
        if column not in columns:
            raise ConfigError(
                f"{name} has no column {column!r}: give prompts.column=NAME, one of {', '.join(columns)}"
            )
        return [column]

    return [_prompt(entry, column, place) for place, entry in read_entries(path, name, choose)]


def _prompt(entry: Any, column: str, place: str) -> str:
    value = entry.get(column) if isinstance(entry, dict) else entry
    if not isinstance(value, str):
        raise ConfigError(
            f'{place} has no prompt: give a text or an object with the key "{column}", or prompts.column=KEY'
        )
    return value
