"""A process of its own that costs no start: a fork of this one, which has imported and loaded what a command needs.

For tests of what becomes of a process (kills, signals, sharing).  That the command begins by itself, from nothing, others hold.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence

import torch

torch.ones((), requires_grad=True).backward()
"""The first gradient of a process decides whether its forks may have any: not where something was compiled before it."""


def forked(
    run: Callable[[Sequence[str]], int | None],
    arguments: Sequence[str] = (),
    stdin: int = subprocess.DEVNULL,
    **environment: str,
) -> subprocess.Popen[str]:
    """A process that does ``sys.exit(run(arguments))``, with pipes as its output."""

    def child() -> None:
        # One of these is what the parent waits for: it is closed where another program begins, which none does here.
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        # Not those that pytest has put there.
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
        os.environ.update(environment)
        code = 70
        try:
            code = run(arguments) or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    return subprocess.Popen(
        ["none"],
        preexec_fn=child,
        restore_signals=False,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def together(
    run: Callable[[Sequence[str]], int | None], arguments: Sequence[str], number: int
) -> list[subprocess.Popen[str]]:
    """So many of them, told of each other as ``torchrun`` tells its processes; one is told nothing."""
    if number == 1:
        return [forked(run, arguments)]
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = str(server.getsockname()[1])
    shared = {"WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [forked(run, arguments, **shared, RANK=str(rank)) for rank in range(number)]
