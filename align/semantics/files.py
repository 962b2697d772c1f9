"""Graphs from files in the published format: one of them, a list, lines, or a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.reading import read_text
from align.semantics.graph import GraphError
from align.semantics.knowledge import Knowledge, read_knowledge


@dataclass(frozen=True)
class Library:
    """Graphs by the prompt as it is written, and by the prompt without case and outer space."""

    graphs: Mapping[str, Knowledge]
    folded: Mapping[str, Knowledge]

    def __call__(self, prompt: str) -> Knowledge | None:
        found = self.graphs.get(prompt)
        return found if found is not None else self.folded.get(_fold(prompt))

    def fingerprint(self) -> str:
        """sha256 of all graphs; how they are split into files has no part in it."""
        entries = sorted(
            json.dumps(graph.to_json(prompt), sort_keys=True) for prompt, graph in self.graphs.items()
        )
        return hashlib.sha256("\n".join(entries).encode("ascii")).hexdigest()


def load_library(path: Path) -> Library:
    """The graphs of a ``.json`` or ``.jsonl`` file, or of all such files below a folder.

    Raises GraphError: a file is missing or malformed, or two graphs of one prompt differ.
    """
    graphs: dict[str, Knowledge] = {}
    for place, value in _values(path):
        prompt = value.get("prompt") if isinstance(value, dict) else None
        if not isinstance(prompt, str):
            raise GraphError(f'{place} has no text "prompt"')
        try:
            graph = read_knowledge(value)
        except GraphError as error:
            raise GraphError(f"{place}: {error}") from None
        if graphs.setdefault(prompt, graph) != graph:
            raise GraphError(f"{place} is a second, different graph of {prompt!r:.60}: keep one")
    folded: dict[str, Knowledge] = {}
    for prompt, graph in graphs.items():
        folded.setdefault(_fold(prompt), graph)
    return Library(graphs, folded)


def _fold(prompt: str) -> str:
    return prompt.strip().casefold()


def _values(path: Path) -> Iterator[tuple[str, Any]]:
    """Every graph's JSON value with the place where it stands."""
    if path.is_dir():
        files = sorted(one for one in path.rglob("*") if one.suffix in (".json", ".jsonl") and one.is_file())
        if not files:
            raise GraphError(f"{path} is a folder without .json or .jsonl files")
        for one in files:
            yield from _values(one)
        return
    try:
        text = read_text(path, "utf-8-sig")
    except FileNotFoundError:
        raise GraphError(f"{path}: there is no such file or folder") from None
    except UnicodeDecodeError as error:
        raise GraphError(f"{path} is not UTF-8 (byte {error.start})") from None
    except (OSError, ValueError) as error:
        raise GraphError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if path.suffix == ".jsonl":
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                place = f"{path}, line {number}"
                yield place, _json(line, place)
        return
    value = _json(text, str(path))
    if isinstance(value, list):
        for number, entry in enumerate(value, 1):
            yield f"{path}, entry {number}", entry
    else:
        yield str(path), value


def _json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise GraphError(f"{place} is not JSON ({error})") from None
