"""Where the newest line of every item stands in the journal.

Rows stay on disk: the index holds a few numbers an item, so 100,000 items fit in some tens of megabytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from align.results.journal import Journal
from align.results.pictures import Verify, intact


class Entry(NamedTuple):
    """The newest line of an item."""

    offset: int
    length: int
    place: int
    """Place of the item in the plan of the run that wrote the line."""
    config: str
    failed: bool
    names: frozenset[str]
    """Columns of its row; equal sets are one object."""


class Index:
    """The items of a journal, and the snapshots of `results.csv` that it knows of."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.entries: dict[str, Entry] = {}
        self.snapshots: set[str] = set()
        self.newest_snapshot = ""
        self.changed = True
        """Whether an item was added or changed since the last snapshot."""
        self.end = 0
        """Where in the journal the newest item's line ends; a snapshot holds what ends no later."""
        self._configs: dict[str, int] = {}
        self._names: dict[frozenset[str], frozenset[str]] = {}
        self._texts: dict[str, str] = {}

    def refresh(self, pictures: dict[str, dict[str, Any] | None] | None = None) -> None:
        """Take in the lines that were appended since, by this process or others. Raises OSError.

        Args:
            pictures: filled, where given, with the picture record of each item whose line was read.
        """
        for offset, length, record in self.journal.new_records():
            if "csv" in record:
                self.newest_snapshot = str(record["csv"])
                self.snapshots.add(self.newest_snapshot)
                # Another process may have added an item while this snapshot was being made.
                self.changed = self.end > int(record.get("end", self.end))
                continue
            key, row = record.get("key"), record.get("row")
            if not isinstance(key, str) or not isinstance(row, dict):
                continue
            config = self._texts.setdefault(*[str(record.get("config", ""))] * 2)
            self._configs.setdefault(config, len(self._configs))
            names = frozenset(row)
            self.entries[key] = Entry(
                offset,
                length,
                int(record.get("place", 0)),
                config,
                str(row.get("status", "ok")).startswith("failed"),
                self._names.setdefault(names, names),
            )
            self.changed = True
            self.end = offset + length
            if pictures is not None:
                pictures[key] = record.get("image")

    def drop_broken(
        self,
        plan: Mapping[str, int],
        pictures: Mapping[str, dict[str, Any] | None],
        folder: Path,
        verify: Verify,
    ) -> int:
        """Forget planned items whose picture is not what was recorded, so that they are made again."""
        broken = [
            key
            for key, record in pictures.items()
            if record is not None and key in plan and not intact(folder, record, verify)
        ]
        for key in broken:
            del self.entries[key]
        self.changed = self.changed or bool(broken)
        return len(broken)

    def order(self, plan: Mapping[str, int]) -> list[str]:
        """Keys in the order of the file: planned ones as planned, then those of earlier runs, run by run."""
        foreign = [key for key in self.entries if key not in plan]
        foreign.sort(key=lambda key: (self._configs[self.entries[key].config], self.entries[key].place, key))
        return [*(key for key in plan if key in self.entries), *foreign]

    def row(self, key: str) -> dict[str, Any]:
        """The whole row of an item, in plain values."""
        entry = self.entries[key]
        record = self.journal.read(entry.offset, entry.length)
        image = record.get("image")
        return {
            **record["row"],
            "key": key,
            "seed": record["seed"],
            "sample": record["sample"],
            "image": f"images/{image['name']}" if image else None,
            "config": entry.config,
        }

    def rows(self, plan: Mapping[str, int]) -> Iterator[dict[str, Any]]:
        """All rows in the order of the file, read from disk one by one."""
        return (self.row(key) for key in self.order(plan))

    def names(self) -> set[str]:
        """Names of all columns in use."""
        return set().union(*{entry.names for entry in self.entries.values()})
