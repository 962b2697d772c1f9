"""Prompt sets: where prompts come from, their hash, and which of them a run takes."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.config.errors import ConfigError, suggestion
from align.config.schema import PromptsConfig


@dataclass(frozen=True)
class PromptSet:
    """The prompts of a run.

    Attributes:
        name, version: of the whole set.
        sha256: hash of the whole set in its own order.
        size: number of prompts in the whole set.
        prompts: those that the run takes, in order.
    """

    name: str
    version: str
    sha256: str
    size: int
    prompts: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """What ``run.json`` tells of it."""
        return {
            "name": self.name,
            "version": self.version,
            "sha256": self.sha256,
            "size": self.size,
            "taken": len(self.prompts),
        }


def load_prompts(config: PromptsConfig) -> PromptSet:
    """The prompts that a configuration names.

    Raises:
        ConfigError: the file cannot be read, the set is not what was pinned, or no prompt is left.
    """
    if config.kind == "file":
        every = read_prompts(Path(str(config.path)))
    elif config.kind == "shapes":
        from align.shapes.grammar import distinct_captions

        drawn = distinct_captions(
            config.split, config.number, config.set_seed, config.objects, counts=config.counts
        )
        every = [caption.text() for caption in drawn]
    else:
        every = list(config.text)
    found = prompts_hash(every)
    if config.sha256 is not None and found != config.sha256:
        raise ConfigError(
            f"prompts={config.name} is not the pinned set (sha256 {found[:12]}, not {config.sha256[:12]}): "
            "use prompts.limit and prompts.offset for a part, or prompts.sha256=null for a set of your own"
        )
    taken = list(every)
    if config.shuffle_seed is not None:
        random.Random(config.shuffle_seed).shuffle(taken)
    end = None if config.limit is None else config.offset + config.limit
    taken = taken[config.offset : end]
    if not taken:
        raise ConfigError(
            f"prompts={config.name} has {len(every)} prompts, prompts.offset={config.offset} leaves none: "
            "give a smaller offset or a set that is not empty"
        )
    return PromptSet(config.name, config.version, found, len(every), tuple(taken))


def prompts_hash(prompts: Sequence[str]) -> str:
    """sha256 of prompts as a JSON list in pure ASCII, so any text has one, lone surrogates too."""
    text = json.dumps(list(prompts), ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def read_prompts(path: Path) -> list[str]:
    """The prompts of a file, in order.

    A ``.json`` file holds a list, a ``.jsonl`` file a value a line; each entry is a text or an object with
    the key ``prompt``, so prompts may be empty and hold newlines.  Any other file holds a prompt a line;
    empty lines are left out.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            text = file.read()
    except FileNotFoundError:
        near = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise ConfigError(
            f"prompts.path={path}: there is no such file{_near_file(path.name, near)}"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"prompts.path={path} is not UTF-8 (byte {error.start}): save it as UTF-8"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"prompts.path={path} cannot be read: {reason}; give another file") from None
    if path.suffix == ".json":
        entries = _json(path, text, "")
        if not isinstance(entries, list):
            raise ConfigError(f"prompts.path={path} holds no list: give a JSON list of prompts")
        return [_prompt(path, entry, f"entry {place}") for place, entry in enumerate(entries, 1)]
    lines = [(place, line.removesuffix("\r")) for place, line in enumerate(text.split("\n"), 1)]
    if path.suffix == ".jsonl":
        filled = [(f"line {place}", line) for place, line in lines if line.strip()]
        return [_prompt(path, _json(path, line, f", {place}"), place) for place, line in filled]
    return [line for _, line in lines if line.strip()]


def _near_file(name: str, others: list[str]) -> str:
    hint = suggestion(name, others)
    return hint.partition("?")[0] + "?" if "did you mean" in hint else "; give the path of a file"


def _json(path: Path, text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"prompts.path={path}{place} is not JSON ({error}): mend it") from None


def _prompt(path: Path, entry: Any, place: str) -> str:
    value = entry.get("prompt") if isinstance(entry, dict) else entry
    if not isinstance(value, str):
        raise ConfigError(
            f'prompts.path={path}, {place} has no prompt: give a text or an object with the key "prompt"'
        )
    return value
