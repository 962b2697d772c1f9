"""What a command scores, as items of a store: each picture with its text has a key of its own."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align import writing
from align.checkpoints.hashes import read_hash
from align.config.errors import ConfigError
from align.reading import read_json
from align.scoring.sources import Asked
from align.store.columns import tags_in

FORMAT = 1
"""Raised when the same picture and text come to mean another value."""
UNREADABLE = "unreadable"
"""Stands for the hash of a file that cannot be read."""


@dataclass(frozen=True)
class Scorable:
    """A picture to score.

    Attributes:
        key: sha256 of all that its row tells of it: its bytes, name, text, seed, sample and further columns, and how often
            all that has come before.  So what is changed is another item.
        seed, sample: as asked for; else 0, and the number of the picture among those of its prompt.
        asked: where it is and what it is scored with.
        sha256: of its bytes.
        index: place among the rows.
    """

    key: str
    seed: int
    sample: int
    asked: Asked
    sha256: str
    index: int

    @property
    def prompt(self) -> str:
        return self.asked.prompt or ""

    @property
    def tags(self) -> Mapping[str, str]:
        return tags_in(self.asked.columns)


def make_items(asked: Sequence[Asked], hashes: Sequence[str]) -> list[Scorable]:
    """Items in the order of their rows.

    Raises:
        ConfigError: two rows with given samples have the same prompt, seed and sample.
    """
    numbers: Counter[tuple[str, int]] = Counter()
    taken: dict[tuple[str, int, int], Asked] = {}
    items: list[Scorable] = []
    for one, sha256 in zip(asked, hashes, strict=True):
        prompt, seed = one.prompt or "", one.seed or 0
        sample = one.sample
        if sample is None:
            sample = numbers[prompt, seed]
            numbers[prompt, seed] += 1
        if (other := taken.setdefault((prompt, seed, sample), one)) is not one:
            raise ConfigError(
                f"{other.place} and {one.place} have the same prompt, seed and sample: number the samples of a prompt, "
                "or leave the column sample out"
            )
        what = {"format": FORMAT, "picture": sha256, "name": one.name, "columns": dict(one.columns)}
        what |= {"prompt": one.prompt, "seed": seed, "sample": sample}
        text = json.dumps(what, sort_keys=True, separators=(",", ":"))
        key = hashlib.sha256(text.encode("ascii")).hexdigest()
        items.append(Scorable(key, seed, sample, one, sha256, len(items)))
    return items


class Hashes:
    """sha256 of files, remembered in a file, which is gone by if it is trusted, while sizes and times of change stay."""

    def __init__(self, path: Path, *, trust: bool) -> None:
        self.path = path
        self._before: dict[str, Any] = {}
        self._found: dict[str, tuple[int, int, str]] = {}
        if trust:
            with suppress(OSError, ValueError):
                found = read_json(path)
                self._before = found if isinstance(found, dict) else {}

    def of(self, paths: Sequence[Path]) -> list[str]:
        """The hash of each file; ``UNREADABLE`` of one that cannot be read."""
        with ThreadPoolExecutor(max_workers=4) as pool:
            return list(pool.map(self._one, paths))

    def save(self) -> None:
        """Remember what was found. Raises OSError."""
        writing.write_text(self.path, json.dumps(self._found), durable=False)

    def _one(self, path: Path) -> str:
        name = os.path.abspath(path)
        try:
            stat = path.stat()
            size, changed = stat.st_size, stat.st_mtime_ns
            known = self._before.get(name)
            if isinstance(known, list) and known[:2] == [size, changed] and len(known) == 3:
                self._found[name] = (size, changed, str(known[2]))
            else:
                self._found[name] = (size, changed, read_hash(path))
        except OSError:
            return UNREADABLE
        return self._found[name][2]
