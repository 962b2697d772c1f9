"""The pictures of an earlier run, with what its rows say of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from align.config.errors import ConfigError
from align.results.columns import HEAD
from align.results.csvfile import read_csv
from align.scoring.sources import Asked, Source, some

KEPT = ("method", "backbone", "reward", "optimised")
"""Columns of a run's rows that their scores in another folder have as well."""


def is_run(pictures: Path) -> bool:
    """Whether this is the folder of a run."""
    return (pictures / "run.json").is_file() and (pictures / "results.csv").is_file()


def of_run(folder: Path) -> Source:
    """The pictures of a run; rows that failed have none.

    Raises:
        ConfigError: its results cannot be read, or name pictures that are not in its folder.
    """
    path = folder / "results.csv"
    try:
        rows: list[dict[Any, Any]] = read_csv(path).to_dict("records")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if missing := [name for name in HEAD if rows and name not in rows[0]]:
        raise ConfigError(f"{path} has no column {missing[0]}: is it the results.csv of a run?")
    asked: list[Asked] = []
    for number, row in enumerate(rows, 1):
        if not row["image"]:
            continue
        picture = folder / row["image"]
        if not picture.resolve().is_relative_to(folder.resolve()):
            raise ConfigError(
                f"{path}, row {number}: {row['image']} is outside of {folder}: mend the column image"
            )
        columns = {name: row[name] for name in KEPT}
        columns["optimised"] = [name for name in row["optimised"].split(";") if name]
        asked.append(
            Asked(
                picture,
                row["image"],
                f"row {number}",
                row["prompt"],
                int(row["seed"]),
                int(row["sample"]),
                columns,
            )
        )
    if not asked:
        raise ConfigError(f"{folder} holds no pictures: give the folder of a run that made some")
    left = [row["prompt"] for row in rows if not row["image"]]
    notes = [f"{some(left, 'rows')} without a picture"] if left else []
    return Source(folder.resolve().name, "run", asked, notes)
