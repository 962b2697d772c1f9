"""The pictures of an earlier run, with what its rows say of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from align.config.convert import shown
from align.config.errors import ConfigError
from align.scoring.sources import Asked, Source, some
from align.store.columns import DRAWN, NEGATIVE, TAG, tags_in
from align.store.errors import StoreError
from align.store.index import rows_of
from align.store.inside import pictures_in

KEPT = ("method", "backbone", "reward")
"""Columns of a run's rows that the rows of their scores in another folder have as well, tags and the like aside."""


@dataclass(frozen=True)
class Made:
    """A picture of a run whose own results are to gain metrics: an item of its store."""

    key: str
    seed: int
    sample: int
    prompt: str
    index: int
    tags: Mapping[str, str] = field(default_factory=dict)


def is_run(pictures: Path) -> bool:
    """Whether this is the folder of a run."""
    results = ("results.csv", "journal.jsonl")
    return (pictures / "run.json").is_file() and any((pictures / name).is_file() for name in results)


def items_of_run(folder: Path) -> list[Made]:
    """What a run has rows of, failed ones too, in their order. Raises ConfigError."""
    return [
        Made(row["key"], row["seed"], row["sample"], row["prompt"], index, tags_in(row))
        for index, row in enumerate(_rows(folder))
    ]


def of_run(folder: Path) -> Source:
    """The pictures of a run, to be scored apart from it; rows that failed have none.

    Raises:
        ConfigError: its results cannot be read, are of several configurations, or name pictures elsewhere.
    """
    rows = _rows(folder)
    configs = {row["config"] for row in rows}
    if len(configs) > 1:
        raise ConfigError(
            f"{folder} holds rows of {len(configs)} configurations, which another folder would not tell apart: "
            "leave run.folder out, and its own results gain the metrics"
        )
    asked = [_asked(row, folder, f"row {number}") for number, row in enumerate(rows, 1) if row["image"]]
    if not asked:
        raise ConfigError(f"{folder} holds no pictures: give the folder of a run that made some")
    left = [row["prompt"] for row in rows if not row["image"]]
    told = f"{some(left, 'rows')} without a picture" if left else ""
    return Source(folder.resolve().name, "a run", asked, told)


def _rows(folder: Path) -> list[dict[str, Any]]:
    """As the journal has them: the table of a run that was killed, or is at work, is behind. Raises ConfigError."""
    try:
        rows = rows_of(folder)
    except StoreError as error:
        raise ConfigError(str(error)) from error
    if not all(isinstance(row.get("prompt"), str) for row in rows):
        raise ConfigError(
            f"{folder / 'journal.jsonl'} has a row without a prompt: is it the journal of a run?"
        )
    return rows


def _asked(row: dict[str, Any], folder: Path, place: str) -> Asked:
    picture = folder / row["image"]
    if not pictures_in(folder, [row["image"]])[0]:
        raise ConfigError(
            f"{folder / 'journal.jsonl'}, {place}: {shown(row['image'])} is no file inside of {folder}: mend its name"
        )
    columns = {name: row.get(name) or "" for name in KEPT}
    columns["optimised"] = row.get("optimised") or []
    kept = [name for name in sorted(row) if name.startswith(TAG) or name in NEGATIVE or name in DRAWN]
    columns |= {name: row[name] for name in kept if row[name]}
    return Asked(picture, row["image"], place, row["prompt"], row["seed"], row["sample"], columns)
