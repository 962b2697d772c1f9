"""A request over HTTP to a stranger, who is believed nothing and is given no more time and room than was agreed.

It goes to the address that was named and nowhere else: no redirect is followed, and a key is sent over TLS or to this machine
alone.  Proxies of the environment are used for https, where they pass on what they cannot read, never for http nor for this
machine.
"""

from __future__ import annotations

import http.client
import ipaddress
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from random import random
from urllib.parse import urlsplit

Clock = Callable[[], float]
"""Seconds, monotonic."""
Sleep = Callable[[float], None]

BUSY = (429, 502, 503, 504)
"""What a server answers that may be able to answer later."""
LONGEST_WAIT = 30.0
"""Seconds between two tries, unless the server says more."""
MOST_PATIENT = 600.0
"""Whatever a server says of when to come back."""


class WebError(Exception):
    """No answer came; the message is one line that begins in the middle of a sentence."""


class Late(WebError):
    """Nor will one be waited for."""


@dataclass(frozen=True)
class Reply:
    """What a server answered, an error too."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def meaning(self) -> str:
        """The status in words of ours: the server's own might hold a key."""
        return f"{self.status} {http.client.responses.get(self.status, '')}".strip()


def ask(
    url: str,
    data: bytes | None,
    seconds: float,
    most: int,
    key: str = "",
    clock: Clock = time.monotonic,
) -> Reply:
    """The answer to a request: JSON is sent, or with None nothing.

    ``seconds`` are for the whole of it, so that one that drips cannot hold up a run; ``most`` are its bytes; ``key`` is sent as a
    bearer token unless empty.  Raises WebError.
    """
    headers = {"Content-Type": "application/json"} if data is not None else {}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    answer = _Answer(urllib.request.Request(url, data, headers), seconds, most, clock)
    if answer.wait():
        raise Late(f"does not answer in {seconds:g} s")
    if answer.error is not None:
        reason = getattr(answer.error, "reason", None) or answer.error
        told = " ".join(str(reason).split()) if isinstance(reason, OSError) else type(answer.error).__name__
        raise WebError(f"cannot be used: {told}")
    if len(answer.data) > most:
        raise WebError(
            f"answers more than {most >> 20} MB" if most >> 20 else f"answers more than {most} bytes"
        )
    return Reply(answer.status, answer.data, answer.headers)


def patiently(
    asking: Callable[[], Reply],
    retries: int,
    sleep: Sleep = time.sleep,
    jitter: Callable[[], float] = random,
) -> Reply:
    """An answer that is final, asked for again after time-outs, lost connections and what busy servers answer.

    Waits 1, 2, 4, ... seconds, at most ``LONGEST_WAIT``, of which a random half is left out so that many who wait do not come
    back together; or as long as the server says.  An internal error (500) is asked about twice.  Raises WebError: the last try's;
    a server that is busy or broken to the end is a Reply.
    """
    broken = 0
    for attempt in range(retries + 1):
        last = attempt == retries
        said = None
        try:
            reply = asking()
        except WebError:
            if last:
                raise
        else:
            broken += reply.status == 500
            if last or not (reply.status in BUSY or (reply.status == 500 and broken == 1)):
                return reply
            said = _retry_after(reply)
        usual = min(2.0**attempt, LONGEST_WAIT)
        sleep(usual * (0.5 + jitter() / 2) if said is None else said)
    raise AssertionError


def _retry_after(reply: Reply) -> float | None:
    """How long a server wants to be left alone: seconds, or a date, which counts from its own."""
    headers = {name.lower(): value for name, value in reply.headers.items()}
    text = headers.get("retry-after", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            when, now = parsedate_to_datetime(text), parsedate_to_datetime(headers["date"])
            seconds = (when - now).total_seconds()
        except (ValueError, TypeError, KeyError):
            return None
    return min(max(seconds, 0.0), MOST_PATIENT) if seconds == seconds else None


def address_fault(url: str, group: str) -> str | None:
    """What is wrong with ``<group>.endpoint``, in one line that repeats nothing secret; None if nothing is."""
    if "@" in url or "?" in url or "#" in url:
        return (
            f"{group}.endpoint holds a password or a query, which would be recorded: "
            f"give the bare URL, and the key in the environment variable that {group}.key_variable names"
        )
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or not url.isascii() or not url.isprintable() or set(url) & set(' \\"<>'):
        return f"{group}.endpoint={url!r:.60} is no URL: give one such as http://localhost:8000/v1"
    return None


def key_fault(url: str, key: str, group: str) -> str | None:
    """Why a key cannot be sent to a sound address, in one line without the key; None if it can, or is empty."""
    if not key:
        return None
    if not (key.isascii() and key.isprintable()) or " " in key:
        return (
            f"the key in {group}.key_variable has a line end or another character that no key has: "
            f"set the variable anew, or give {group}.key_variable=null"
        )
    if urlsplit(url).scheme == "http" and not _is_here(urlsplit(url).hostname or ""):
        return (
            f"{group}.endpoint={url} would have the key sent in the clear: give an https:// address, "
            f"or {group}.key_variable=null where none is wanted"
        )
    return None


def _is_here(host: str) -> bool:
    """Whether a host is this machine by its name alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Answer:
    """The answer to a request, awaited by a thread, so that a server that drips cannot hold up a run."""

    def __init__(self, request: urllib.request.Request, seconds: float, most: int, clock: Clock) -> None:
        self.status, self.data = 0, b""
        self.headers: dict[str, str] = {}
        self.error: Exception | None = None
        self._most, self._clock = most, clock
        self._ends = clock() + seconds
        self._thread = threading.Thread(target=self._read, args=(request, seconds), daemon=True)
        self._thread.start()

    def wait(self) -> bool:
        """Wait until it is there or its time is over; whether it is over."""
        self._thread.join(max(0.0, self._ends - self._clock()))
        reason = getattr(self.error, "reason", None) or self.error
        return self._thread.is_alive() or isinstance(reason, TimeoutError)

    def _read(self, request: urllib.request.Request, seconds: float) -> None:
        try:
            with _opener(request.host).open(request, timeout=seconds) as answer:
                self.status, self.headers = answer.status, dict(answer.headers)
                while len(self.data) <= self._most:
                    if self._clock() > self._ends:
                        raise TimeoutError
                    if not (part := answer.read1(1 << 16)):
                        break
                    self.data += part
                if (missing := answer.length) and len(self.data) <= self._most:
                    raise ConnectionError(f"the answer ended {missing} bytes early")
        except Exception as error:  # told by the thread that waits
            self.error = error


def _opener(address: str) -> urllib.request.OpenerDirector:
    """What opens http and https, follows no redirect, and hands on whatever was answered."""
    host = urlsplit(f"//{address}").hostname or ""
    found = {} if _is_here(host) else urllib.request.getproxies()
    proxies = {kind: address for kind, address in found.items() if kind == "https"}
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(proxies),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
    ):
        opener.add_handler(handler)
    return opener
