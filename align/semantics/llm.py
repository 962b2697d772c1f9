"""Graphs from a chat model, remembered on disk, so that a second run asks nobody."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from align.reading import read_json
from align.semantics.graph import GraphError, RefusedError
from align.semantics.knowledge import Knowledge, read_knowledge
from align.semantics.prompting import messages, read_answer, reproach, template_hash
from align.writing import write_text

T = TypeVar("T")
Q = TypeVar("Q")

Chat = Callable[[Sequence[dict[str, str]]], str]
"""From messages to the model's answer. Raises GraphError."""


class Lazily(Generic[Q]):
    """A model that takes memory: made by ``load`` at the first question, given up by ``close``."""

    def __init__(self, load: Callable[[], Callable[[Q], str]]) -> None:
        self.load = load
        self.model: Callable[[Q], str] | None = None

    def __call__(self, question: Q) -> str:
        if self.model is None:
            self.model = self.load()
        return self.model(question)

    def close(self) -> None:
        """Give the memory back; another question would load it again."""
        self.model = None


def ask(
    chat: Chat,
    question: Sequence[dict[str, str]],
    read: Callable[[str], T],
    reproach: Callable[[str], dict[str, str]],
    retries: int,
    wait: float,
) -> T:
    """What ``read`` makes of a model's answer, which is asked for again where there is none that can be read.

    After a call that failed it waits ``wait`` seconds, doubled each time; after an answer that ``read`` refused it asks with a
    ``reproach``.  Raises GraphError: how many tries it took and why the last one failed; RefusedError: it cannot be asked at all.
    """
    asked, last = list(question), ""
    for attempt in range(retries + 1):
        try:
            answer = chat(asked)
        except RefusedError:
            raise
        except GraphError as error:
            last = str(error)
            if attempt < retries:
                time.sleep(wait * 2**attempt)
            continue
        try:
            return read(answer)
        except GraphError as error:
            last = str(error)
            # At temperature 0 the same question has the same answer: say what was wrong with it.
            asked = [*question, {"role": "assistant", "content": answer}, reproach(last)]
    raise GraphError(f"{f'{retries + 1} tries' if retries else 'one try'}: {last}")


def keep(path: Path, content: Mapping[str, Any]) -> None:
    """Keep an answer as JSON. Raises GraphError: it cannot be written, and would be asked for again and again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise GraphError(
            f"{path.parent} cannot be written ({error.strerror}): set HF_HOME to a folder that can"
        ) from None


@dataclass(frozen=True)
class AskedGraphs:
    """Graphs of prompts as a model reads them; its name is part of the place in ``folder`` where an answer is kept.

    A call that failed is repeated after ``wait`` seconds, doubled each time.
    """

    chat: Chat
    model: str
    folder: Path
    retries: int = 2
    wait: float = 1.0

    def __call__(self, prompt: str) -> Knowledge:
        """The graph of a prompt, from disk if it was asked for before.

        Raises GraphError: no usable answer came, and why the last one was none; RefusedError: the model cannot be asked at all.
        """
        path = self.place(prompt)
        with suppress(OSError, ValueError, GraphError):
            return read_knowledge(read_json(path))
        graph = self._asked(prompt)
        keep(path, {**graph.to_json(prompt), "model": self.model, "template": template_hash()})
        return graph

    def _asked(self, prompt: str) -> Knowledge:
        try:
            return ask(self.chat, messages(prompt), read_answer, reproach, self.retries, self.wait)
        except RefusedError:
            raise
        except GraphError as error:
            raise GraphError(f"no graph of {prompt!r:.60} from {self.model} in {error}") from None

    def place(self, prompt: str) -> Path:
        """Where the answer about a prompt is kept."""
        parts = json.dumps([prompt, self.model, template_hash()])
        return self.folder / f"{hashlib.sha256(parts.encode('ascii')).hexdigest()}.json"


def answers_folder(of: str = "graphs") -> Path:
    """Where answers of a kind are kept: ``$HF_HOME/align/graphs``, else ``~/.cache/align/graphs``."""
    home = os.environ.get("HF_HOME") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "align" / of
