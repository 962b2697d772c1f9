"""Scores that were asked for once, on disk: a run that goes on asks nothing twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.reading import read_json
from align.rewards.elsewhere.wire import Row
from align.rewards.errors import RewardError
from align.writing import write_text


@dataclass(frozen=True)
class Scores:
    """Rows of one judge; ``judge`` is all that tells it from others."""

    folder: Path
    judge: str

    def place(self, item: str, metadata: Mapping[str, Any] | None = None) -> Path:
        """Where the row of an item is kept, by the item's id."""
        parts = [item, self.judge, *([] if metadata is None else [metadata])]
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode("ascii")).hexdigest()
        return self.folder / digest[:2] / f"{digest}.json"

    def get(self, place: Path) -> tuple[Row, str] | None:
        """A row and the model that it is of, if it was kept whole."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = read_json(place)
            return Row(float(found["score"]), "", found["further"]), str(found["model"])
        return None

    def put(self, place: Path, row: Row, model: str) -> None:
        """Keep a row that has a score. Raises RewardError: it cannot be kept, and would be asked for again and again."""
        content = {"score": row.score, "model": model, "judge": self.judge, "further": dict(row.further)}
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            write_text(place, json.dumps(content) + "\n", durable=False)
        except OSError as error:
            raise RewardError(
                f"{place.parent} cannot be written ({error.strerror}): set HF_HOME to a folder that can"
            ) from None
