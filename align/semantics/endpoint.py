"""An OpenAI-compatible chat endpoint, whose answer is believed nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from align.semantics.graph import GraphError, RefusedError
from align.web import Reply, WebError, address_fault, ask, key_fault

MOST_TOKENS = 2048
"""Of an answer; the longest published graph takes a third of it."""
MOST_BYTES = 1 << 20
MOST_CHARACTERS = 16 * MOST_TOKENS
"""Of an answer's message."""


@dataclass(frozen=True)
class Endpoint:
    """Such an endpoint by its base URL, like ``http://localhost:8000/v1``, or the whole ``.../chat/completions``.

    ``key`` is sent as a bearer token unless empty; ``timeout`` are the seconds to wait for the whole answer; ``group`` is whose
    options messages name.
    """

    url: str
    model: str
    key: str = field(default="", repr=False)
    timeout: float = 60.0
    group: str = "semantics"

    def __call__(self, chat: Sequence[dict[str, str]]) -> str:
        """Ask once, at temperature 0. Raises GraphError, RefusedError."""
        if fault := self.fault:
            raise RefusedError(fault)
        try:
            reply = self.reply({"max_tokens": MOST_TOKENS, "messages": list(chat)})
        except WebError as error:
            raise GraphError(f"{self.named} {error}") from None
        if reply.status != 200:
            raise self._explained(reply)
        try:
            content: Any = json.loads(reply.body)["choices"][0]["message"]["content"]
        except (ValueError, RecursionError):
            raise GraphError(f"{self.named} answers what is no JSON") from None
        except (LookupError, TypeError):
            content = None
        if not isinstance(content, str):
            raise GraphError(f"{self.named} answers without a message")
        if len(content) > MOST_CHARACTERS:
            raise GraphError(f"{self.named} answers with a message of {len(content)} characters")
        if self.key and self.key in content:
            raise RefusedError(f"{self.named} repeats the key in its answer: nothing of it is kept")
        return content

    @property
    def fault(self) -> str | None:
        """Why it cannot be asked at all; None if it can."""
        return address_fault(self.url, self.group) or key_fault(self.url, self.key, self.group)

    @property
    def named(self) -> str:
        return f"{self.group}.endpoint={self.url}"

    def reply(self, body: Mapping[str, Any]) -> Reply:
        """What it answers to a chat, at temperature 0, with further fields in ``body``. Raises WebError."""
        url = self.url.rstrip("/")
        if not url.endswith("/chat/completions"):
            url += "/chat/completions"
        content = {"model": self.model, "temperature": 0, **body}
        return ask(url, json.dumps(content).encode("ascii"), self.timeout, MOST_BYTES, self.key)

    def _explained(self, reply: Reply) -> GraphError:
        """What went wrong, in words of ours: the endpoint's own might hold the key."""
        code, text = reply.status, f"{self.named} answers {reply.meaning}"
        if 300 <= code < 400:
            return RefusedError(f"{text}: redirects are not followed, give the address it leads to")
        if code in (401, 403):
            return RefusedError(f"{text}: check the key in {self.group}.key_variable")
        if code in (404, 405):
            return RefusedError(f"{text}: check {self.group}.endpoint and {self.group}.model")
        return GraphError(text)
