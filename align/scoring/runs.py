"""The pictures of an earlier run, with what its rows say of them."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.config.convert import shown
from align.config.errors import ConfigError
from align.results.columns import HEAD, NEGATIVE, is_tag
from align.results.csvfile import read_csv
from align.results.inside import pictures_in
from align.scoring.sources import Asked, Source, some

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


def is_run(pictures: Path) -> bool:
    """Whether this is the folder of a run."""
    return (pictures / "run.json").is_file() and (pictures / "results.csv").is_file()


def items_of_run(folder: Path) -> list[Made]:
    """What a run has rows of, failed ones too, in their order. Raises ConfigError."""
    rows = _rows(folder)
    return [
        Made(row["key"], int(row["seed"]), int(row["sample"]), row["prompt"], index)
        for index, row in enumerate(rows)
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


def _rows(folder: Path) -> list[dict[Hashable, Any]]:
    path = folder / "results.csv"
    try:
        table = read_csv(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if missing := [name for name in (*HEAD, "config") if name not in table]:
        raise ConfigError(f"{path} has no column {missing[0]}: is it the results.csv of a run?")
    rows = table.to_dict("records")
    for name in ("seed", "sample"):
        if not all(isinstance(row[name], int) for row in rows):
            raise ConfigError(
                f"{path}: column {name} holds what is no whole number: is it the results.csv of a run?"
            )
    if len({row["key"] for row in rows}) < len(rows):
        raise ConfigError(f"{path} has a key twice: delete it, and the run's own command makes it again")
    return rows


def _asked(row: dict[Hashable, Any], folder: Path, place: str) -> Asked:
    picture = folder / row["image"]
    if not pictures_in(folder, [row["image"]])[0]:
        raise ConfigError(
            f"{folder / 'results.csv'}, {place}: {shown(row['image'])} is no file inside of {folder}: mend the column image"
        )
    columns = {name: row[name] for name in KEPT}
    columns["optimised"] = [name for name in row["optimised"].split(";") if name]
    columns |= {str(name): row[name] for name in row if (is_tag(str(name)) or name in NEGATIVE) and row[name]}
    return Asked(picture, row["image"], place, row["prompt"], int(row["seed"]), int(row["sample"]), columns)
