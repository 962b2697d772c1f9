"""Graphs from a chat model, remembered on disk, so that a second run asks nobody."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from align.reading import read_json
from align.semantics.graph import GraphError, RefusedError
from align.semantics.knowledge import Knowledge, read_knowledge
from align.semantics.prompting import messages, read_answer, reproach, template_hash
from align.writing import write_text

Chat = Callable[[Sequence[dict[str, str]]], str]
"""From messages to the model's answer. Raises GraphError."""


class Lazily:
    """A chat that takes memory: made by ``load`` at the first question, given up by ``close``."""

    def __init__(self, load: Callable[[], Chat]) -> None:
        self.load = load
        self.chat: Chat | None = None

    def __call__(self, chat: Sequence[dict[str, str]]) -> str:
        if self.chat is None:
            self.chat = self.load()
        return self.chat(chat)

    def close(self) -> None:
        """Give the memory back; another question would load it again."""
        self.chat = None


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
        kept = {**graph.to_json(prompt), "model": self.model, "template": template_hash()}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(kept, indent=1) + "\n")
        except OSError as error:  # the run would ask again and again without anyone noticing
            raise GraphError(
                f"{path.parent} cannot be written ({error.strerror}): set HF_HOME to a folder that can"
            ) from None
        return graph

    def _asked(self, prompt: str) -> Knowledge:
        chat = messages(prompt)
        last = ""
        for attempt in range(self.retries + 1):
            try:
                answer = self.chat(chat)
            except RefusedError:
                raise
            except GraphError as error:
                last = str(error)
                if attempt < self.retries:
                    time.sleep(self.wait * 2**attempt)
                continue
            try:
                return read_answer(answer)
            except GraphError as error:
                last = str(error)
                # At temperature 0 the same question has the same answer: say what was wrong with it.
                chat = [*messages(prompt), {"role": "assistant", "content": answer}, reproach(last)]
        tries = f"{self.retries + 1} tries" if self.retries else "one try"
        raise GraphError(f"no graph of {prompt!r:.60} from {self.model} in {tries}: {last}")

    def place(self, prompt: str) -> Path:
        """Where the answer about a prompt is kept."""
        parts = json.dumps([prompt, self.model, template_hash()])
        return self.folder / f"{hashlib.sha256(parts.encode('ascii')).hexdigest()}.json"


def answers_folder() -> Path:
    """Where answers are kept: ``$HF_HOME/align/graphs``, else ``~/.cache/align/graphs``."""
    home = os.environ.get("HF_HOME") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "align" / "graphs"
