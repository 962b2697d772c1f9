"""What a metric says of one picture, as the journal keeps it beside the picture's own line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from align.store.columns import is_check
from align.store.jsonable import json_value

CHECKER = "checker"
"""The exact checker's name among metrics; its columns are the verdicts.  Any other metric's column is its name, and one of ``PARTS`` beside it
where it tells some."""


@dataclass(frozen=True)
class Result:
    """What came of measuring one picture with one metric."""

    values: Mapping[str, Any]
    """By column; None is an empty cell."""
    note: str = ""
    """What the row's status says after the metric's name, such as "is not finite"; empty where all is well."""
    failed: bool = False
    """The metric could not be computed: this is no result, and the next run measures again."""

    def for_journal(self) -> dict[str, Any]:
        """For the journal, without what is as usual."""
        found: dict[str, Any] = {"values": json_value(self.values)}
        return found | ({"note": self.note} if self.note else {}) | ({"failed": True} if self.failed else {})


def has_column(metric: str, names: frozenset[str]) -> bool:
    """Whether a row with these columns has some of a metric's."""
    return any(is_check(name) for name in names) if metric == CHECKER else metric in names


def with_results(row: Mapping[str, Any], results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A row with the results of its picture, by metric (see ``Result.for_journal``), in its columns and its status.

    Rows of older versions hold values themselves, with a note in the status for each that is missing; the note of a metric
    that was measured again goes.
    """
    merged = dict(row)
    for result in results.values():
        merged |= result["values"]
    state, _, said = str(row.get("status", "ok")).partition(": ")
    if state != "ok":
        return merged
    notes = [note for note in said.split("; ") if note and note.partition(" ")[0] not in results]
    notes += [f"{metric} {result['note']}" for metric, result in results.items() if "note" in result]
    return merged | {"status": f"ok: {'; '.join(notes)}" if notes else "ok"}
