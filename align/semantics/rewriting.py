"""Prompts written anew by a language model, remembered on disk, so that a run that goes on draws the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.reading import read_json
from align.semantics.graph import GraphError, RefusedError
from align.semantics.llm import Chat, ask, keep

INSTRUCTION = """\
You rewrite prompts of a text-to-image model so that it draws better pictures. Keep every object, number, colour and relation \
of the prompt as it is, then add words of style, light, composition and detail that fit it. Answer with the rewritten prompt \
alone: one line of at most 60 words, no quotes, no explanation.\
"""
LONGEST = 600
"""Letters of a rewritten prompt."""


@dataclass(frozen=True)
class Rewrites:
    """From a prompt to the rewritten one.

    Attributes:
        write: asks the model. Raises GraphError.
        of: what decides the answers beside the prompt: a part of their place in ``folder``.
        folder: where answers are kept.
        model: what is asked in the end, for who gives its memory back.
    """

    write: Callable[[str], str]
    of: Mapping[str, Any]
    folder: Path
    model: object = None

    def __call__(self, prompt: str) -> str:
        """Raises GraphError: no answer came that can be used, and why; RefusedError: the model cannot be asked at all."""
        path = self.place(prompt)
        with suppress(OSError, ValueError, LookupError, TypeError, GraphError):
            return read_rewrite(str(read_json(path)["rewritten"]))
        try:
            written = read_rewrite(self.write(prompt))
        except RefusedError:
            raise
        except GraphError as error:
            raise GraphError(f"{prompt!r:.60} cannot be rewritten: {error}") from None
        keep(path, {"prompt": prompt, "rewritten": written, "of": dict(self.of)})
        return written

    def place(self, prompt: str) -> Path:
        """Where the answer to a prompt is kept."""
        parts = json.dumps([prompt, dict(self.of)], sort_keys=True)
        return self.folder / f"{hashlib.sha256(parts.encode('ascii')).hexdigest()}.json"


def by_chat(chat: Chat, retries: int, wait: float = 1.0) -> Callable[[str], str]:
    """Rewriting by a chat model that is told what is wanted."""
    return lambda prompt: ask(chat, messages(prompt), read_rewrite, reproach, retries, wait)


def messages(prompt: str) -> list[dict[str, str]]:
    """The chat that asks for it."""
    return [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": prompt}]


def reproach(reason: str) -> dict[str, str]:
    """The message after an answer that was no prompt."""
    return {
        "role": "user",
        "content": f"That cannot be used: {reason}. Answer with the rewritten prompt alone, in one line.",
    }


def template_hash() -> str:
    """sha256 of everything in the chat but the prompt."""
    return hashlib.sha256(json.dumps(messages(""), sort_keys=True).encode("ascii")).hexdigest()


def read_rewrite(answer: str) -> str:
    """The prompt in an answer, without quotes around it. Raises GraphError: it is none."""
    text = answer.strip()
    if len(text) > 1 and (text[0], text[-1]) in (('"', '"'), ("'", "'"), ("\u201c", "\u201d")):
        text = text[1:-1].strip()
    if not text:
        raise GraphError("the answer is empty")
    if not text.isprintable():
        raise GraphError("the answer is not one line of text")
    if len(text) > LONGEST:
        raise GraphError(f"the answer has {len(text)} letters, more than {LONGEST}")
    return text
