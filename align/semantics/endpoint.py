"""An OpenAI-compatible chat endpoint: a stranger who is told a key, and whose answer is believed nothing.

The key goes to the address that the command names and nowhere else: no redirect is followed, and it is sent over TLS or to
this machine alone.  Proxies of the environment are used for https, where they pass on what they cannot read, never for http.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from align.semantics.graph import GraphError, RefusedError

MOST_TOKENS = 2048
"""Of an answer; the longest published graph takes a third of it."""
MOST_BYTES = 1 << 20
MOST_CHARACTERS = 16 * MOST_TOKENS
"""Of an answer's message."""


@dataclass(frozen=True)
class Endpoint:
    """Such an endpoint by its base URL, like ``http://localhost:8000/v1``, or the whole ``.../chat/completions``.

    ``key`` is sent as a bearer token unless empty; ``timeout`` are the seconds to wait for the whole answer.
    """

    url: str
    model: str
    key: str = field(default="", repr=False)
    timeout: float = 60.0

    def __call__(self, chat: Sequence[dict[str, str]]) -> str:
        """Ask once, at temperature 0. Raises GraphError, RefusedError."""
        if fault := address_fault(self.url) or key_fault(self.url, self.key):
            raise RefusedError(fault)
        answer = _Answer(self._request(chat), self.timeout)
        if answer.wait():
            raise GraphError(f"{self._named} does not answer in {self.timeout:g} s")
        if answer.error is not None:
            raise self._explained(answer.error) from None
        if len(answer.data) > MOST_BYTES:
            raise GraphError(f"{self._named} answers more than {MOST_BYTES >> 20} MB")
        try:
            content: Any = json.loads(answer.data)["choices"][0]["message"]["content"]
        except (ValueError, RecursionError):
            raise GraphError(f"{self._named} answers what is no JSON") from None
        except (LookupError, TypeError):
            content = None
        if not isinstance(content, str):
            raise GraphError(f"{self._named} answers without a message")
        if len(content) > MOST_CHARACTERS:
            raise GraphError(f"{self._named} answers with a message of {len(content)} characters")
        if self.key and self.key in content:
            raise RefusedError(f"{self._named} repeats the key in its answer: nothing of it is kept")
        return content

    @property
    def _named(self) -> str:
        return f"semantics.endpoint={self.url}"

    def _request(self, chat: Sequence[dict[str, str]]) -> urllib.request.Request:
        url = self.url.rstrip("/")
        if not url.endswith("/chat/completions"):
            url += "/chat/completions"
        facts = {"model": self.model, "temperature": 0, "max_tokens": MOST_TOKENS}
        body = {**facts, "messages": list(chat)}
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        return urllib.request.Request(url, json.dumps(body).encode("ascii"), headers)

    def _explained(self, error: Exception) -> GraphError:
        """What went wrong, in words of ours: the endpoint's own might hold the key."""
        if isinstance(error, urllib.error.HTTPError):
            code = error.code
            meaning = http.client.responses.get(code, "")
            text = f"{self._named} answers {code} {meaning}".strip()
            if 300 <= code < 400:
                return RefusedError(f"{text}: redirects are not followed, give the address it leads to")
            if code in (401, 403):
                return RefusedError(f"{text}: check the key in semantics.key_variable")
            if code in (404, 405):
                return RefusedError(f"{text}: check semantics.endpoint and semantics.model")
            return GraphError(text)
        reason = getattr(error, "reason", None) or error
        told = " ".join(str(reason).split()) if isinstance(reason, OSError) else type(error).__name__
        return GraphError(f"{self._named} cannot be used: {told}")


def address_fault(url: str) -> str | None:
    """What is wrong with an endpoint's address, in one line that repeats nothing secret; None if nothing is."""
    if "@" in url or "?" in url or "#" in url:
        return (
            "semantics.endpoint holds a password or a query, which would be recorded: "
            "give the bare URL, and the key in the environment variable that semantics.key_variable names"
        )
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or not url.isascii() or not url.isprintable() or set(url) & set(' \\"<>'):
        return f"semantics.endpoint={url!r:.60} is no URL: give one such as http://localhost:8000/v1"
    return None


def key_fault(url: str, key: str) -> str | None:
    """Why a key cannot be sent to a sound address, in one line without the key; None if it can, or is empty."""
    if not key:
        return None
    if not (key.isascii() and key.isprintable()) or " " in key:
        return (
            "the key in semantics.key_variable has a line end or another character that no key has: "
            "set the variable anew, or give semantics.key_variable=null"
        )
    if urlsplit(url).scheme == "http" and not _is_here(urlsplit(url).hostname or ""):
        return (
            f"semantics.endpoint={url} would have the key sent in the clear: give an https:// address, "
            "or semantics.key_variable=null where none is wanted"
        )
    return None


def _is_here(host: str) -> bool:
    """Whether a host is this machine by its name alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Answer:
    """The answer to a request, awaited by a thread, so that an endpoint that drips cannot hold up a run."""

    def __init__(self, request: urllib.request.Request, seconds: float) -> None:
        self.data = b""
        self.error: Exception | None = None
        self._ends = time.monotonic() + seconds
        self._thread = threading.Thread(target=self._read, args=(request, seconds), daemon=True)
        self._thread.start()

    def wait(self) -> bool:
        """Wait until it is there or its time is over; whether it is over."""
        self._thread.join(max(0.0, self._ends - time.monotonic()))
        return self._thread.is_alive() or isinstance(self.error, TimeoutError)

    def _read(self, request: urllib.request.Request, seconds: float) -> None:
        try:
            with _opener().open(request, timeout=seconds) as answer:
                while len(self.data) <= MOST_BYTES:
                    if time.monotonic() > self._ends:
                        raise TimeoutError
                    if not (part := answer.read1(1 << 16)):
                        break
                    self.data += part
        except urllib.error.HTTPError as error:
            error.close()
            self.error = error
        except urllib.error.URLError as error:
            self.error = error.reason if isinstance(error.reason, TimeoutError) else error
        except Exception as error:  # told by the thread that waits
            self.error = error


def _opener() -> urllib.request.OpenerDirector:
    """What opens http and https and follows no redirect."""
    proxies = {kind: address for kind, address in urllib.request.getproxies().items() if kind == "https"}
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(proxies),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    return opener
