"""A report's groups: pictures by a tag of their prompts (a benchmark's categories, say) or by another text of their rows."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from align.analysis.arms import Arm, cost_columns, value_columns
from align.analysis.paired import paired_differences
from align.analysis.summary import summarise
from align.store.columns import PARTS, TAG
from align.store.errors import ReportError

if TYPE_CHECKING:
    import pandas

OTHERS = ("method", "backbone", "reward", "negative", "seed")
"""What rows are grouped by beside tags."""


class UnknownColumn(ReportError):
    """Rows are to be grouped by a column that none has; ``known`` are those that there are."""

    def __init__(self, message: str, known: list[str]) -> None:
        super().__init__(message)
        self.known = known


@dataclass(frozen=True)
class Groups:
    """Arms by group."""

    name: str
    """Of what they are grouped by, as people call it."""
    summary: pandas.DataFrame
    """One row a group and arm: ``by``, ``group``, ``label``, and the columns of ``summary.summary``."""
    pairs: pandas.DataFrame
    """One row a group, arm and value: ``by``, ``group``, and the columns of ``paired.paired_differences``."""


def group(arms: Sequence[Arm], base: Arm, wanted: str) -> Groups:
    """Group the rows of arms, the baseline first, by ``wanted``.

    That is a tag, by the name of its column in the prompt file or in ``results.csv``; or one of ``OTHERS``. A row whose tag
    is a list is in the group of each entry, see ``_apart``. Raises UnknownColumn: no row has it.
    """
    import pandas

    column = _column(arms, wanted)
    name = column.removeprefix(TAG)
    first = next(place for place, arm in enumerate(arms) if arm is base)
    arms, texts = zip(*map(_apart, arms, _texts(arms, column, f"(no {name})")), strict=True)
    base = arms[first]
    summary: list[dict[str, Any]] = []
    pairs: list[pandas.DataFrame] = []
    for text in dict.fromkeys(text for own in texts for text in own):
        for arm, own in zip(arms, texts, strict=True):
            rows = arm.rows[[other == text for other in own]]
            if rows.empty:
                continue
            found = summarise(rows)
            del found["failed"]  # these rows are the finished ones
            found["n"] = rows.index.nunique()  # pictures
            found["optimised"] = ";".join(sorted(arm.optimised))
            summary.append({"by": name, "group": text, "label": arm.label} | found)
            if arm is not base:
                table = paired_differences(replace(arm, rows=rows.reset_index(drop=True)), base)
                table.insert(0, "group", text)
                table.insert(0, "by", name)
                pairs.append(table)
    return Groups(name, pandas.DataFrame(summary), pandas.concat(pairs) if pairs else pandas.DataFrame())


def _column(arms: Sequence[Arm], wanted: str) -> str:
    """The column of ``results.csv`` that a name stands for."""
    there = dict.fromkeys(str(name) for arm in arms for name in arm.rows.columns)
    tags = [name for name in there if name.startswith(TAG)]
    for name in (wanted, f"{TAG}{wanted}"):
        if name in tags:
            return name
    if wanted in OTHERS and wanted in there:
        return wanted
    known = [name.removeprefix(TAG) for name in tags] + [name for name in OTHERS if name in there]
    without = "" if tags else "; no prompt has a tag: give prompts whose file has further columns"
    raise UnknownColumn(f"no row has a column {wanted!r}{without}", known)


def _texts(arms: Sequence[Arm], column: str, none: str) -> list[list[str]]:
    """The group of each row.

    A row that was made before its prompts had tags has the tag that another arm's row of its prompt has.
    """
    told = []
    for arm in arms:
        cells = arm.rows.reindex(columns=[column])[column].astype(object).fillna("")
        told.append(list(zip(map(str, arm.rows["prompt"]), map(str, cells), strict=True)))
    known: dict[str, str] = {}
    for prompt, text in (one for own in told for one in own) if column.startswith(TAG) else ():
        if text:
            known.setdefault(prompt, text)
    return [[text or known.get(prompt, none) for prompt, text in own] for own in told]


def _apart(arm: Arm, texts: list[str]) -> tuple[Arm, list[str]]:
    """An arm with a row for each entry of a tag that is a list of texts, such as the skills that a prompt's questions ask for.

    A value of which the row tells as many parts (see ``PARTS``) has its part there, so that a group's mean is over parts; any
    other is there once a group.
    """
    lists = [_entries(text) for text in texts]
    places = [(row, entry) for row, own in enumerate(lists) for entry in range(len(own))]
    if len(places) == len(texts):
        return arm, [entry for own in lists for entry in own]
    first = [lists[row].index(lists[row][entry]) == entry for row, entry in places]
    rows = arm.rows.iloc[[row for row, _ in places]].copy()
    # Pictures are paired by these, and so entries of one list are too.
    rows["sample"] = [
        int(sample) * 4096 + entry for sample, (_, entry) in zip(rows["sample"], places, strict=True)
    ]
    for name in (*value_columns(arm.rows), *cost_columns(arm.rows)):
        cells = arm.rows.get(f"{PARTS}{name}", [None] * len(texts))
        parts = [cell.split(";") if isinstance(cell, str) else [] for cell in cells]
        values = [
            float(parts[row][entry]) if len(parts[row]) == len(lists[row]) else value if once else math.nan
            for (row, entry), once, value in zip(places, first, rows[name], strict=True)
        ]
        rows[name] = values
    return replace(arm, rows=rows), [lists[row][entry] for row, entry in places]


def _entries(text: str) -> list[str]:
    """The entries of a list of texts in JSON; of any other text itself."""
    try:
        found = json.loads(text) if text.startswith("[") else None
    except (ValueError, RecursionError):
        found = None
    return (
        found if isinstance(found, list) and found and all(isinstance(one, str) for one in found) else [text]
    )
