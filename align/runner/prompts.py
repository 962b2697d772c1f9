"""Prompt sets: where prompts come from, their hash, and which of them a run takes."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from align.checkpoints.needed import Needed
from align.config.errors import ConfigError
from align.config.schema import PromptsConfig
from align.rewards.geneval.prompts import tags_of
from align.runner.prompt_files import PromptRow, read_prompts
from align.runner.unsafe import is_unsafe, words_hash


@dataclass(frozen=True)
class PromptSet:
    """The prompts of a run: the ``whole`` set with its hash (see ``set_hash``), and the ``rows`` that the run takes.

    ``dropped`` counts those of the whole set that were left out as unsafe; None if nobody looked.
    """

    name: str
    version: str
    sha256: str
    whole: tuple[PromptRow, ...]
    rows: tuple[PromptRow, ...]
    dropped: int | None = None

    @property
    def prompts(self) -> tuple[str, ...]:
        return tuple(row.text for row in self.rows)

    @property
    def tags(self) -> list[str]:
        """The columns of the tags that the taken prompts have."""
        return list(dict.fromkeys(column for row in self.rows for column in row.tags))

    def record(self) -> dict[str, Any]:
        unsafe = {"dropped": self.dropped, "words_sha256": words_hash()} if self.dropped is not None else None
        return {
            "name": self.name,
            "version": self.version,
            "sha256": self.sha256,
            "size": len(self.whole),
            "unsafe": unsafe,
            "taken": len(self.rows),
            "tags": self.tags,
        }


def load_prompts(config: PromptsConfig, files: Sequence[Needed] = ()) -> PromptSet:
    """The prompts that a configuration names; of a data set with its ``Files.prompts``. Raises ConfigError.

    From the whole set unsafe ones are dropped if it says so, the rest is shuffled if it says so, and of that
    ``limit`` prompts from ``offset`` on are taken.
    """
    every = [_told(row, config) for row in whole_set(config, files)]
    found = set_hash(every)
    if config.sha256 is not None and found != config.sha256:
        raise ConfigError(
            f"prompts={config.name} is not the pinned set (sha256 {found[:12]}, not {config.sha256[:12]}): "
            "use prompts.limit and prompts.offset for a part, or prompts.sha256=null for a set of your own"
        )
    taken = list(every)
    dropped = None
    if config.unsafe == "drop":
        taken = [row for row in every if not is_unsafe(row.text)]
        dropped = len(every) - len(taken)
    if config.shuffle_seed is not None:
        random.Random(config.shuffle_seed).shuffle(taken)
    end = None if config.limit is None else config.offset + config.limit
    taken = taken[config.offset : end]
    if not taken:
        without = f", {dropped} of them dropped as unsafe" if dropped else ""
        raise ConfigError(
            f"prompts={config.name} has {len(every)} prompts{without}, prompts.offset={config.offset} leaves none: "
            "give a smaller offset or a set that is not empty"
        )
    return PromptSet(config.name, config.version, found, tuple(every), tuple(taken), dropped)


def _told(row: PromptRow, config: PromptsConfig) -> PromptRow:
    """A row with what its prompt asks for among its tags, where the set says how that is read."""
    return row if config.metadata is None else replace(row, tags=tags_of(row.text, row.tags))


def whole_set(config: PromptsConfig, files: Sequence[Needed] = ()) -> list[PromptRow]:
    """The whole set in its own order. Raises ConfigError."""
    if config.kind == "file":
        return read_prompts(Path(str(config.path)), config)
    if config.kind == "dataset":
        return _dataset(config, *files)
    if config.kind == "shapes":
        from align.shapes.grammar import distinct_captions

        drawn = distinct_captions(
            config.split, config.number, config.set_seed, config.objects, counts=config.counts
        )
        return [PromptRow(caption.text()) for caption in drawn]
    return _listed(config)


def _listed(config: PromptsConfig) -> list[PromptRow]:
    values: dict[str, list[str]] = {}
    for column, numbers in config.tags.items():
        values[column] = [value for value, number in numbers.items() for _ in range(number)]
        if len(values[column]) != len(config.text):
            raise ConfigError(
                f"prompts.tags.{column} tags {len(values[column])} prompts and prompts.text has {len(config.text)}: "
                "give numbers that add up to them, or ~prompts.tags"
            )
    return [
        PromptRow(text, tags={column: values[column][k] for column in values})
        for k, text in enumerate(config.text)
    ]


def _dataset(config: PromptsConfig, needed: Needed) -> list[PromptRow]:
    if len(needed.parts) > len(config.files):
        raise ConfigError(
            f"prompts.files={list(config.files)} fits {', '.join(needed.parts)}: name those that are meant"
        )
    rows: list[PromptRow] = []
    for part in needed.parts:
        found = read_prompts(needed.folder / part, config, f"{part} of {config.dataset}")
        if len(needed.parts) > 1:  # as of HPDv2, where each style has its file
            found = [replace(row, tags={"file": PurePath(part).stem, **row.tags}) for row in found]
        rows += found
    return rows


def set_hash(rows: Sequence[PromptRow]) -> str:
    """sha256 of what decides the pictures of a set: its prompts, and where rows have them, their negatives and seeds."""
    if all(row.negative is None and row.seed is None for row in rows):
        return prompts_hash([row.text for row in rows])
    return prompts_hash([[row.text, row.negative, row.seed] for row in rows])


def prompts_hash(prompts: Sequence[Any]) -> str:
    """sha256 of a JSON list in pure ASCII, so any text has one, lone surrogates too."""
    text = json.dumps(list(prompts), ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()
