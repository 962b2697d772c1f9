"""``run.json`` of a folder that is open: what its sessions add to it when they begin and when they end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from align.reading import open_file
from align.store.errors import StoreError, as_store_error
from align.store.manifest import (
    Manifest,
    check_identity,
    inline_fingerprints,
    now,
    read_run,
    started_run,
    write_run,
)

OF_A_RUN = ("status", "plan", "counts")
"""Parts that only who works on the run's plan writes."""


class PlannedItem(Protocol):
    """What the store needs to know of a picture that is to be made, or to be measured."""

    @property
    def key(self) -> str:
        """sha256 of the item's identity, 64 hex digits."""

    @property
    def seed(self) -> int: ...

    @property
    def sample(self) -> int:
        """Number of the picture among those of one prompt and seed."""


class RunFile:
    """The ``run.json`` of one folder; a guest leaves the parts of ``OF_A_RUN`` as they are."""

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        plan: Sequence[PlannedItem],
        *,
        alone: bool,
        extend: bool,
        guest: bool,
    ) -> None:
        """Begin a session, if the folder is one of the same run. Raises StoreError, with the file as before."""
        self.folder = folder
        self.config = manifest.digest
        self.guest = guest
        existing = read_run(folder)
        self.unclosed = alone and existing is not None and existing.get("status") == "started"
        if existing is None:
            if any((folder / name).exists() for name in ("results.csv", "journal.jsonl")):
                raise StoreError(f"{folder} holds results but no run.json: choose another run.folder")
        elif alone and _is_bare(folder):
            existing = None  # of a run that made nothing, perhaps because its weights were damaged
        else:
            check_identity(folder, existing, manifest, extend=extend)
        self.content = started_run(manifest, existing, _summary(plan))
        if guest and existing is not None:
            self.content |= {name: existing[name] for name in OF_A_RUN if name in existing}
        self.session: int = self.content["sessions"][-1]["session"]
        self.inline = inline_fingerprints(self.content)
        write_run(folder, self.content)

    def end(self, status: str, counts: Mapping[str, int]) -> None:
        """End the session. Raises StoreError."""
        self.content = read_run(self.folder) or self.content  # others may have begun sessions since
        self.content["updated"] = now()
        if not self.guest:
            self.content |= {"status": status, "counts": counts}
        write_run(self.folder, self.content)


def _is_bare(folder: Path) -> bool:
    """Whether no item was ever made here: none in the journal, no picture."""
    with as_store_error(f"read {folder}"):
        if any((folder / "images").glob("*")):
            return False
        try:
            with open_file(folder / "journal.jsonl") as file:
                return not any(b'"key"' in line for line in file)
        except FileNotFoundError:
            return True


def _summary(plan: Sequence[PlannedItem]) -> dict[str, Any]:
    seeds = sorted({int(item.seed) for item in plan})
    samples = len({int(item.sample) for item in plan})
    return {"items": len(plan), "seeds": seeds if len(seeds) <= 100 else len(seeds), "samples": samples}
