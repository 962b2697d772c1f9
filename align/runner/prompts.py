"""Prompt sets: where prompts come from, their hash, and which of them a run takes."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.config.errors import ConfigError
from align.config.schema import PromptsConfig
from align.runner.prompt_files import read_prompts
from align.runner.unsafe import is_unsafe, words_hash
from align.runner.weights import dataset_files


@dataclass(frozen=True)
class PromptSet:
    """The prompts of a run.

    Attributes:
        name, version: of the whole set.
        sha256: hash of the whole set in its own order.
        size: number of prompts in the whole set.
        prompts: those that the run takes, in order.
        dropped: how many of the whole set were left out as unsafe; ``None`` if nobody looked.
    """

    name: str
    version: str
    sha256: str
    size: int
    prompts: tuple[str, ...]
    dropped: int | None = None

    def record(self) -> dict[str, Any]:
        """What ``run.json`` tells of it."""
        unsafe = {"dropped": self.dropped, "words_sha256": words_hash()} if self.dropped is not None else None
        return {
            "name": self.name,
            "version": self.version,
            "sha256": self.sha256,
            "size": self.size,
            "unsafe": unsafe,
            "taken": len(self.prompts),
        }


def load_prompts(config: PromptsConfig) -> PromptSet:
    """The prompts that a configuration names.

    From the whole set unsafe ones are dropped if it says so, the rest is shuffled if it says so, and of that
    ``limit`` prompts from ``offset`` on are taken.

    Raises:
        ConfigError: a file cannot be read, the set is not what was pinned, or no prompt is left.
    """
    every = _whole(config)
    found = prompts_hash(every)
    if config.sha256 is not None and found != config.sha256:
        raise ConfigError(
            f"prompts={config.name} is not the pinned set (sha256 {found[:12]}, not {config.sha256[:12]}): "
            "use prompts.limit and prompts.offset for a part, or prompts.sha256=null for a set of your own"
        )
    taken = list(every)
    dropped = None
    if config.unsafe == "drop":
        taken = [prompt for prompt in every if not is_unsafe(prompt)]
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
    return PromptSet(config.name, config.version, found, len(every), tuple(taken), dropped)


def _whole(config: PromptsConfig) -> list[str]:
    """The whole set in its own order."""
    if config.kind == "file":
        return read_prompts(Path(str(config.path)), config.column)
    if config.kind == "dataset":
        return _dataset(config)
    if config.kind == "shapes":
        from align.shapes.grammar import distinct_captions

        drawn = distinct_captions(
            config.split, config.number, config.set_seed, config.objects, counts=config.counts
        )
        return [caption.text() for caption in drawn]
    return list(config.text)


def _dataset(config: PromptsConfig) -> list[str]:
    (needed,) = dataset_files(config)
    if len(needed.parts) > len(config.files):
        raise ConfigError(
            f"prompts.files={list(config.files)} fits {', '.join(needed.parts)}: name those that are meant"
        )
    return [
        prompt
        for part in needed.parts
        for prompt in read_prompts(needed.folder / part, config.column, f"{part} of {config.dataset}")
    ]


def prompts_hash(prompts: Sequence[str]) -> str:
    """sha256 of prompts as a JSON list in pure ASCII, so any text has one, lone surrogates too."""
    text = json.dumps(list(prompts), ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()
