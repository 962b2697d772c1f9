"""Arms: the rows of one configuration, gathered from one or several run folders."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.reading import read_json
from align.store.columns import COSTS, is_check, is_metric
from align.store.csvfile import read_csv
from align.store.errors import ReportError
from align.store.inside import pictures_in

if TYPE_CHECKING:
    import pandas

Pair = tuple[str, int, int]
"""Prompt, seed and sample: what two arms must share for their pictures to be compared."""


@dataclass
class Arm:
    """One configuration."""

    label: str
    """What tables call it; unique in a report."""
    method: str
    backbone: str
    reward: str
    config: str
    folders: list[Path]
    rows: pandas.DataFrame
    """Finished ones, with a column ``path`` that holds the picture's full path or is empty."""
    failures: dict[Pair, str]
    """Status of each row that failed."""
    optimised: frozenset[str]

    def pairs(self) -> dict[Pair, int]:
        """Place of each row by prompt, seed and sample."""
        return {pair: place for place, pair in enumerate(_pairs(self.rows))}


def _pairs(rows: pandas.DataFrame) -> list[Pair]:
    columns = (rows["prompt"], rows["seed"], rows["sample"])
    return [(str(prompt), int(seed), int(sample)) for prompt, seed, sample in zip(*columns, strict=True)]


def optimised_columns(rows: pandas.DataFrame) -> frozenset[str]:
    """Metric columns that the method of these rows optimised."""
    cells: list[Any] = list(rows.get("optimised", []))
    texts = {";".join(cell) if isinstance(cell, list) else str(cell or "") for cell in cells}
    return frozenset(name for text in texts for name in text.split(";") if name)


def _numeric(rows: pandas.DataFrame, names: Iterable[Any]) -> list[str]:
    """Those of some columns that are numbers and hold any."""
    kept = [name for name in names if name in rows and rows[name].dtype.kind in "ifb"]
    return [str(name) for name in kept if rows[name].notna().any()]


def value_columns(rows: pandas.DataFrame) -> list[str]:
    """Checker verdicts, then metrics: the numeric columns of these kinds that hold any value."""
    numeric = _numeric(rows, rows.columns)
    return [name for name in numeric if is_check(name)] + [name for name in numeric if is_metric(name)]


def cost_columns(rows: pandas.DataFrame) -> list[str]:
    """The cost columns that hold any value."""
    return _numeric(rows, COSTS)


def run_folders(folders: Iterable[Path]) -> list[Path]:
    """Folders with results: those given, or for one without, the ones up to two levels below it, sorted.

    Raises ReportError: a folder is missing, or there are no results in it.
    """
    found: list[Path] = []
    for folder in map(Path, folders):
        if not os.path.isdir(folder):  # which takes any text for a path
            raise ReportError(f"{folder} is not a folder")
        files = [folder / "results.csv"] if (folder / "results.csv").is_file() else []
        files = files or sorted([*folder.glob("*/results.csv"), *folder.glob("*/*/results.csv")])
        if not files:
            raise ReportError(f"{folder} has no results.csv: is it the folder of a run?")
        found += [file.parent for file in files]
    unique = {folder.resolve(): folder for folder in reversed(found)}
    return list(reversed(unique.values()))


def load_arms(folders: Iterable[Path]) -> tuple[list[Arm], list[str]]:
    """The arms of run folders, in the order of folders and rows, and notes on what was left out or looks incomplete.

    Rows of one configuration are one arm, whichever folder they are in; a row that is there twice counts once.
    Raises ReportError: see ``run_folders``; or a ``results.csv`` cannot be read.
    """
    notes: list[str] = []
    parts: dict[tuple[Any, ...], dict[Path, pandas.DataFrame]] = {}
    for folder in run_folders(folders):
        table = read_rows(folder)
        status = _status(folder)
        if status not in ("finished", ""):
            notes.append(f"{folder.name}: the run is not finished (status {status!r})")
        notes += _drop_infinite(table, folder)
        table["path"] = pictures_in(folder, table["image"])
        if outside := int(((table["image"] != "") & (table["path"] == "")).sum()):
            notes.append(
                f"{folder.name}: {outside} pictures are no files inside the folder and are not shown"
            )
        config = table["config"].replace("", f"folder {folder}")
        for arm, rows in table.groupby([config, "method", "backbone", "reward"], sort=False):
            parts.setdefault(arm, {})[folder] = rows
    made = [_arm(arm, tables, notes) for arm, tables in parts.items()]
    if not made:
        raise ReportError("the folders hold no rows yet")
    _label(made)
    return made, notes


def _arm(identity: tuple[str, ...], tables: dict[Path, pandas.DataFrame], notes: list[str]) -> Arm:
    import pandas

    config, method, backbone, reward = identity
    rows = pandas.concat(tables.values())
    failed = rows["status"].str.startswith("failed")
    good, bad = rows[~failed], rows[failed]
    twice = good.duplicated(["prompt", "seed", "sample"])
    if twice.any():
        notes.append(f"{method or 'method'}: {int(twice.sum())} rows are there twice and count once")
    good = good[~twice].reset_index(drop=True)
    failures = dict(zip(_pairs(bad), map(str, bad["status"]), strict=True))
    return Arm("", method, backbone, reward, config, list(tables), good, failures, optimised_columns(rows))


def _label(arms: Sequence[Arm]) -> None:
    """Label by method; where that is not unique add what the folder's name has of its own, then the configuration."""
    folders: dict[str, list[str]] = {}
    for arm in arms:
        folders.setdefault(arm.method, []).append(arm.folders[0].resolve().name)
    shared = {method: len(_in_common(names)) for method, names in folders.items()}

    def name(arm: Arm, level: int) -> str:
        method = arm.method or "?"
        place = arm.folders[0].resolve().name[shared[arm.method] :]
        text = (method, f"{method} ({place})", f"{method} ({place}, {arm.config[:8]})")[level]
        return "".join(character if character.isprintable() else "?" for character in text)

    for level in range(3):
        labels = [arm.label for arm in arms]
        for arm in arms:
            if level == 0 or labels.count(arm.label) > 1:
                arm.label = name(arm, level)
    for number, arm in enumerate(arms):
        if arm.label in [other.label for other in arms[:number]]:
            arm.label = f"{arm.label} #{number + 1}"


def _in_common(names: Sequence[str]) -> str:
    """What several names begin with, up to the last dash or comma and never all of one."""
    parts = zip(*(re.split(r"(?<=[,-])", name[:-1])[:-1] for name in names), strict=False)
    return "".join(same[0] for same in takewhile(lambda same: len(set(same)) == 1, parts))


def read_rows(folder: Path) -> pandas.DataFrame:
    """The rows of a run folder. Raises ReportError: there are none, or they are not a run's."""
    path = folder / "results.csv"
    try:
        table = read_csv(path)
    except FileNotFoundError:
        raise ReportError(f"{folder} is no run's folder: it has no results.csv") from None
    except (OSError, ValueError) as error:
        raise ReportError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    missing = [name for name in ("prompt", "seed", "sample", "method", "status") if name not in table]
    if missing:
        raise ReportError(f"{path} has no column {missing[0]!r}: is it the results.csv of a run?")
    for name in ("seed", "sample"):
        if len(table) and not all(isinstance(value, int) for value in table[name].tolist()):
            raise ReportError(
                f"{path}: column {name!r} holds what is no whole number: is it the results.csv of a run?"
            )
    for name in ("backbone", "reward", "image", "config", "optimised"):
        if name not in table:
            table[name] = ""
    return table


def _drop_infinite(table: pandas.DataFrame, folder: Path) -> list[str]:
    """Empty the cells that hold an infinite number, of which nothing can be a mean; a line for each column."""
    notes = []
    for name in table.columns:
        if table[name].dtype.kind == "f" and (endless := table[name].isin([math.inf, -math.inf])).any():
            table[name] = table[name].mask(endless)
            notes.append(f"{folder.name}: {int(endless.sum())} infinite numbers of {name} count for nothing")
    return notes


def _status(folder: Path) -> str:
    try:
        return str(read_json(folder / "run.json").get("status", ""))
    except (OSError, ValueError, AttributeError):
        return ""
