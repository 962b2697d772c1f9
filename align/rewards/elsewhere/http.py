"""``reward=http``: a judge behind a URL."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import random
from typing import Any, Literal

from align.reading import parse_json
from align.rewards.elsewhere.wire import PROTOCOLS, Answer, Item
from align.rewards.errors import CannotJudge
from align.web import Clock, Reply, Sleep, WebError, address_fault, ask, key_fault, patiently

GROUP = "judges.http"
MOST_BYTES = 1 << 20
"""Of an answer, besides ``BYTES_A_ROW``."""
BYTES_A_ROW = 1 << 14
SAID = 500
"""Characters of a refusal that are told."""


@dataclass(frozen=True)
class Server:
    """A server of rewards by its address; the options are those of ``judges.http``.

    ``key`` is sent as a bearer token unless empty.  ``sleep``, ``jitter`` and ``clock`` are for tests.
    """

    endpoint: str
    reward: str
    protocol: Literal["align", "unirl", "flow_factory"] = "align"
    timeout: float = 120.0
    retries: int = 5
    key: str = field(default="", repr=False)
    sleep: Sleep = time.sleep
    jitter: Callable[[], float] = random
    clock: Clock = time.monotonic

    def __call__(self, items: Sequence[Item]) -> Answer:
        """Ask about some items. Raises CannotJudge."""
        protocol = PROTOCOLS[self.protocol]
        data = json.dumps(protocol.body(self.reward, items)).encode("ascii")
        reply = self._patiently(protocol.path, data, MOST_BYTES + len(items) * BYTES_A_ROW)
        if reply.status != 200:
            raise CannotJudge(self._refused(reply))
        try:
            return protocol.read(parse_json(reply.body), self.reward, len(items))
        except ValueError:
            raise CannotJudge(f"{self._named} answers what is no JSON: {self._said(reply)}") from None
        except CannotJudge as error:
            raise CannotJudge(f"{self._named} {error}: {self._said(reply)}") from None

    def health(self) -> dict[str, str]:
        """What the server says of itself: model and version, as far as it does. Raises CannotJudge: it is not there."""
        reply = self._patiently("/health", None, MOST_BYTES)
        if reply.status in (401, 403):
            raise CannotJudge(self._refused(reply))
        try:
            found: Any = parse_json(reply.body) if reply.status == 200 else {}
        except ValueError:
            found = {}
        told = found if isinstance(found, dict) else {}
        return {
            name: str(told[name]) for name in ("model", "version") if isinstance(told.get(name), str | int)
        }

    @property
    def _named(self) -> str:
        return f"{GROUP}.endpoint={self.endpoint}"

    def _patiently(self, path: str, data: bytes | None, most: int) -> Reply:
        if fault := address_fault(self.endpoint, GROUP) or key_fault(self.endpoint, self.key, GROUP):
            raise CannotJudge(fault)
        url = self.endpoint.rstrip("/") + path
        try:
            return patiently(
                lambda: ask(url, data, self.timeout, most, self.key, self.clock),
                self.retries,
                self.sleep,
                self.jitter,
            )
        except WebError as error:
            raise CannotJudge(f"{self._named} {error}") from None

    def _refused(self, reply: Reply) -> str:
        text = f"{self._named} answers {reply.meaning}"
        if 300 <= reply.status < 400:
            return f"{text}: redirects are not followed, give the address it leads to"
        if reply.status in (401, 403):
            return f"{text}: check the key in {GROUP}.key_variable"
        return f"{text}: {self._said(reply)}"

    def _said(self, reply: Reply) -> str:
        """The beginning of a body on one line, without the key."""
        text = reply.body.decode("utf-8", "replace")
        text = text.replace(self.key, "***") if self.key else text
        shown = "".join(one if one.isprintable() else " " for one in text[: 2 * SAID])
        return " ".join(shown.split())[:SAID] or "(nothing)"
