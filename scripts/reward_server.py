"""Serve a registered reward, so that another environment or machine can hold it.

    python scripts/reward_server.py pickscore --port 8000
    python -m align ... reward=http judges.http.endpoint=http://localhost:8000

It listens on this machine alone unless ``--host`` says otherwise, and then wants ``--key-variable`` (or ``--open``): whoever
reaches it may keep its device busy.  With ``--pipe`` it is the program of ``reward=process``.
"""

from __future__ import annotations

import argparse
import hmac
import json
import os
import sys
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO

from align.config.errors import ConfigError
from align.config.plugins import read_plugins
from align.errors import WeightsError
from align.reading import parse_json
from align.rewards.elsewhere.serve import BadRequest, Judge
from align.rewards.errors import RewardError

MOST_BYTES = 256 << 20
"""Of a request."""
SECONDS = 300
"""That a client may be silent."""


def judge_of(name: str, device: str, options: Sequence[str] = ()) -> Judge:
    """The judge of a reward, called by its name and the hashes of its files and options; these are those of ``judges``.

    Raises ConfigError, WeightsError, RewardError.
    """
    from align.config.command import Command
    from align.config.compose import jobs_of
    from align.rewards.registry import find, load, spec
    from align.runner.judges import fingerprint_of, options_of

    prints = [one.fingerprint()[:12] for one in find(name) if one.parts]
    more = {}
    if spec(name).section is not None:
        (job,) = jobs_of(Command((f"metrics.rewards=[{name}]", *options)))
        more = options_of(name, job.config.judges)
        prints.append(fingerprint_of(name, job.config.judges)[:12])
    reward = load(name, device, **more)
    return Judge(reward, "@".join([name, *prints]))


def server(judge: Judge, host: str, port: int, key: str = "") -> ThreadingHTTPServer:
    """A server of a judge that is not running yet; ``key`` is wanted as a bearer token unless empty."""

    class Handler(BaseHTTPRequestHandler):
        timeout = SECONDS

        def do_GET(self) -> None:
            if not self._let_in():
                return
            if self.path.rstrip("/").endswith("/health"):
                self._say(200, judge.health())
            else:
                self._say(404, {"error": "ask for /health, or POST a request"})

        def do_POST(self) -> None:
            if not self._let_in():
                return
            length = self.headers.get("Content-Length", "")
            if not length.isdecimal() or int(length) > MOST_BYTES:
                self._say(413, {"error": f"a request has a length of at most {MOST_BYTES >> 20} MB"})
                return
            try:
                self._say(200, judge.answer(parse_json(self.rfile.read(int(length)))))
            except (BadRequest, ValueError) as error:
                self._say(400, {"error": str(error)})

        def _let_in(self) -> bool:
            told = self.headers.get("Authorization", "")
            if not key or hmac.compare_digest(told.encode(), f"Bearer {key}".encode()):
                return True
            self._say(401, {"error": "the key is missing or wrong"})
            return False

        def _say(self, code: int, content: dict[str, Any]) -> None:
            data = json.dumps(content).encode("ascii")
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: Any) -> None:
            pass

    return ThreadingHTTPServer((host, port), Handler)


def pipe(judge: Judge, asked: BinaryIO, said: BinaryIO) -> None:
    """Answer lines until there is none."""
    for line in asked:
        try:
            found = judge.answer(parse_json(line))
        except (BadRequest, ValueError) as error:
            found = {"error": str(error)}
        said.write(json.dumps(found).encode("ascii") + b"\n")
        said.flush()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("reward", help="name of a registered reward")
    parser.add_argument("options", nargs="*", metavar="judges.OPTION=VALUE", help="of a reward that has some")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--pipe", action="store_true", help="answer lines of standard input instead")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--plugin", type=Path, action="append", default=[], help="Python file that adds rewards"
    )
    parser.add_argument("--key-variable", help="environment variable that holds the key to be wanted")
    parser.add_argument("--open", action="store_true", help="let other machines in without a key")
    found = parser.parse_args()
    key = os.environ.get(found.key_variable, "") if found.key_variable else ""
    if found.key_variable and not key:
        parser.error(f"--key-variable {found.key_variable}: the environment has none such, or an empty one")
    if found.host not in ("127.0.0.1", "localhost", "::1") and not (key or found.open or found.pipe):
        parser.error(f"--host {found.host} lets other machines in: give --key-variable NAME, or --open")
    said = sys.stdout.buffer
    sys.stdout = sys.stderr  # whatever a model prints is no answer
    try:
        read_plugins([str(path) for path in found.plugin])
        judge = judge_of(found.reward, found.device, found.options)
    except (ConfigError, WeightsError, RewardError) as error:
        print(f"reward_server: {error}", file=sys.stderr)
        return 3 if isinstance(error, WeightsError) else 2
    if found.pipe:
        pipe(judge, sys.stdin.buffer, said)
        return 0
    with server(judge, found.host, found.port, key) as served:
        print(f"{judge.model} at http://{found.host}:{served.server_port}", file=sys.stderr, flush=True)
        try:
            served.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
