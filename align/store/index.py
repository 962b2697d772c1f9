"""Where the newest line of every item, and the lines of its measurements since, stand in the journal.

Rows stay on disk: the index holds a few numbers an item, so 100,000 items fit in some tens of megabytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from align.store.errors import as_store_error
from align.store.journal import Journal
from align.store.measured import has_column, with_results
from align.store.pictures import Verify, intact, is_stamp

_KEY = re.compile(r"[0-9a-f]{64}")
T = TypeVar("T")
Results = frozenset[tuple[str, str]]


class Entry(NamedTuple):
    """The newest line of an item, and what was measured of its picture."""

    offset: int
    length: int
    place: int
    """Place of the item in the plan of the run that wrote the line."""
    config: str
    failed: bool
    names: frozenset[str]
    """Columns of its row; equal sets are one object."""
    own: frozenset[str]
    """Those in the item's own line, whatever measured them."""
    session: int | None = None
    """Session that made it."""
    lines: tuple[tuple[int, int], ...] = ()
    """Offset and length of each line that measures it, the newest last."""
    by: Results = frozenset()
    """Metric and fingerprint of each result, "" of one that failed; equal sets are one object."""


class Index:
    """The items of a journal, and the snapshots of ``results.csv`` that it knows of.

    Of ``inline`` see ``manifest.inline_fingerprints``.
    """

    def __init__(self, journal: Journal, inline: Mapping[str, str]) -> None:
        self.journal = journal
        self._inline = inline
        self.entries: dict[str, Entry] = {}
        self.snapshots: set[str] = set()
        self.newest_snapshot = ""
        self.changed = True
        """Whether an item was added or changed since the last snapshot."""
        self.end = 0
        """Where in the journal the newest item's line ends; a snapshot holds what ends no later."""
        self._configs: dict[str, int] = {}
        self._shared: dict[Any, Any] = {}
        # A line measures several items, whose rows are mostly read one after another.
        self._line = lru_cache(maxsize=32)(journal.read)

    def refresh(self, pictures: dict[str, dict[str, Any] | None] | None = None) -> None:
        """Take in the lines that were appended since, by this process or others. Raises OSError.

        ``pictures`` is filled with the stamp of each item whose line was read.
        """
        for offset, length, record in self.journal.new_records():
            if "csv" in record:
                self.newest_snapshot = str(record["csv"])
                self.snapshots.add(self.newest_snapshot)
                # Another process may have added an item while this snapshot was being made.
                end = record.get("end")
                self.changed = self.end > (end if isinstance(end, int) else self.end)
            elif _is_measurement(record):
                self._measure((offset, length), record)
            elif _is_item(record):
                self._item((offset, length), record)
                if pictures is not None:
                    pictures[record["key"]] = record.get("image")

    def _item(self, line: tuple[int, int], record: dict[str, Any]) -> None:
        row, config = record["row"], self._same(str(record.get("config", "")))
        self._configs.setdefault(config, len(self._configs))
        names = self._same(frozenset(row))
        failed = str(row.get("status", "ok")).startswith("failed")
        self.entries[record["key"]] = Entry(
            *line, record.get("place", 0), config, failed, names, names, record.get("session")
        )
        self.changed = True
        self.end = sum(line)

    def _measure(self, line: tuple[int, int], record: dict[str, Any]) -> None:
        """Take in a line of measurements; those of items that are not here any more count for nothing."""
        fingerprints = record["by"]
        for key, results in record["measured"].items():
            entry = self.entries.get(key)
            if entry is None or entry.failed:
                continue
            by = dict(entry.by)
            by |= {
                metric: "" if one.get("failed") else fingerprints[metric] for metric, one in results.items()
            }
            names = self._same(entry.names.union(*(one["values"] for one in results.values())))
            lines = (*entry.lines, line)
            self.entries[key] = entry._replace(names=names, lines=lines, by=self._same(frozenset(by.items())))
        self.changed = True
        self.end = sum(line)

    def _same(self, value: T) -> T:
        """The one object that stands for all that are equal to it."""
        same: T = self._shared.setdefault(value, value)
        return same

    def drop_broken(
        self,
        plan: Mapping[str, int],
        pictures: Mapping[str, dict[str, Any] | None],
        folder: Path,
        verify: Verify,
    ) -> int:
        """Forget planned items whose picture is not what was recorded, so that they are made again."""
        stamps = [(key, stamp) for key, stamp in pictures.items() if stamp is not None and key in plan]
        broken = [key for key, stamp in stamps if not intact(folder, stamp, verify)]
        for key in broken:
            del self.entries[key]
        self.changed = self.changed or bool(broken)
        return len(broken)

    def is_done(self, key: str) -> bool:
        entry = self.entries.get(key)
        return entry is not None and not entry.failed

    def lacking(self, key: str, wanted: Mapping[str, str]) -> list[str]:
        """Metrics among ``wanted`` (fingerprint by metric) that have no result by these weights of a done item.

        Values of older versions, which stand in the item's own line, are by the weights that their session names.
        """
        return self._lacking(self.entries[key].own, self.entries[key].by, wanted) if self.is_done(key) else []

    def _lacking(self, own: frozenset[str], by: Results, wanted: Mapping[str, str]) -> list[str]:
        known = {metric: one for metric, one in self._inline.items() if has_column(metric, own)} | dict(by)
        return [metric for metric, fingerprint in wanted.items() if known.get(metric) != fingerprint]

    def unmeasured(self, keys: Iterable[str], wanted: Mapping[str, str]) -> set[str]:
        """Done ones that lack a result of some of the metrics, see ``lacking``."""
        lacking = cache(lambda own, by: bool(self._lacking(own, by, wanted)))  # most items are alike
        done = ((key, self.entries[key]) for key in keys if self.is_done(key))
        return {key for key, entry in done if lacking(entry.own, entry.by)}

    def without_value(self, keys: Iterable[str], wanted: Mapping[str, str]) -> set[str]:
        """Done ones that one of these metrics failed on and has had no result for since."""
        failed = {(metric, "") for metric in wanted}
        return {key for key in keys if self.is_done(key) and self.entries[key].by & failed}

    def order(self, plan: Mapping[str, int], *, foreign: bool = True) -> list[str]:
        """Keys in the order of the file: planned ones as planned, then, if asked for, those of earlier runs, run by run."""
        planned = [key for key in plan if key in self.entries]
        if not foreign:
            return planned
        others = [key for key in self.entries if key not in plan]
        others.sort(key=lambda key: (self._configs[self.entries[key].config], self.entries[key].place, key))
        return [*planned, *others]

    def row(self, key: str) -> dict[str, Any]:
        """The whole row of an item, in plain values."""
        entry = self.entries[key]
        record = self.journal.read(entry.offset, entry.length)
        image = record.get("image")
        row, results = record["row"], dict[str, Any]()
        for line in entry.lines:
            found = self._line(*line)
            results |= found["measured"][key]
            # In the order in which the newest line names metrics, whichever was measured first.
            results = {name: results[name] for name in {**found["by"], **results} if name in results}
        if results:
            row = with_results(row, results)
        return {
            **row,
            "key": key,
            "seed": record["seed"],
            "sample": record["sample"],
            "image": f"images/{image['name']}" if image else None,
            "config": entry.config,
            "session": entry.session,
        }

    def names(self, keys: Iterable[str]) -> set[str]:
        """Names of all columns in use by some items."""
        return set().union(*{self.entries[key].names for key in keys})


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The rows that a folder's journal holds, which its ``results.csv`` may be behind; nothing is written. Raises StoreError."""
    path = folder / "journal.jsonl"
    with as_store_error(f"read {path}, which holds the rows of {folder}"):
        journal = Journal(path, reading=True)
        try:
            index = Index(journal, {})
            index.refresh()
            return [index.row(key) for key in index.order({})]
        finally:
            journal.close()


def _is_item(record: Mapping[str, Any]) -> bool:
    """Whether a line is an item's: somebody else may have written it, and keys and pictures name files."""
    key, row, image, session = (record.get(name) for name in ("key", "row", "image", "session"))
    return (
        isinstance(key, str)
        and _KEY.fullmatch(key) is not None
        and isinstance(row, dict)
        and all(isinstance(record.get(name, 0), int) for name in ("seed", "sample", "place"))
        and {"seed", "sample"} <= record.keys()
        and (session is None or isinstance(session, int))
        and (image is None or is_stamp(image))
    )


def _is_measurement(record: Mapping[str, Any]) -> bool:
    """Whether a line is one of measurements, see ``Result.for_journal``."""
    measured, by = record.get("measured"), record.get("by")
    if not (isinstance(measured, dict) and isinstance(by, dict)):
        return False
    if not all(isinstance(one, str) for one in by.values()):
        return False
    if not all(isinstance(results, dict) for results in measured.values()):
        return False
    said = [one for results in measured.values() for one in results.items()]
    return all(
        metric in by and isinstance(one, dict) and isinstance(one.get("values"), dict) for metric, one in said
    )
