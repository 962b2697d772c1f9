"""The command ``python -m align``: read, compose, check, dispatch.  Imports nothing heavy by itself.

Whatever happens ends in one line and an exit code (``align.runner.exits``): Ctrl-C while modules are imported, output that
nobody takes, an error that nobody thought of.
"""

from __future__ import annotations

import contextlib
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

VERBOSE = ("-v", "--verbose")


def program() -> NoReturn:
    """The command as a process: as ``main``, and from its first moment to its last a signal ends it with one line."""
    try:
        from align.runner.interrupts import end_at_signals
        from align.startup import hurry, leave

        end_at_signals()
        hurry()
        code = main()
    except KeyboardInterrupt:
        os._exit(interrupted())  # there is nothing yet that could be ended well
    leave(code)


def interrupted() -> int:
    """Say so where nothing else may be there yet; returns the exit code."""
    with contextlib.suppress(OSError):
        os.write(2, b"align: interrupted\n")
    return 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code (see ``align.runner.exits``)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        from align.output import printing
        from align.runner.exits import FAILED, tell, verbose
        from align.runner.interrupts import Interrupts

        with (
            Interrupts() as interrupts,
            printing() as printed,
            verbose(any(word in VERBOSE for word in argv)),
        ):
            try:
                code = dispatch([word for word in argv if word not in VERBOSE])
            except SystemExit as error:
                # Of argparse, after the help of a command; a text is a library's last word.
                code = error.code or 0 if isinstance(error.code, int | None) else tell(error)
            except BaseException as error:  # panics of libraries that are not written in Python among them
                # What an interrupted import leaves half-made fails in its own ways.
                code = tell(KeyboardInterrupt() if interrupts.seen else error)
            sys.stdout.flush()
            if printed.lost is not None and not isinstance(printed.lost, BrokenPipeError):
                print(f"align: not all output could be written: {printed.lost.strerror}", file=sys.stderr)
        return code if printed.lost is None else code or FAILED
    except KeyboardInterrupt:
        return interrupted()


def dispatch(argv: list[str]) -> int:
    """Do what a command line asks for; returns the exit code. Raises ConfigError, FilesMissing."""
    from importlib import import_module

    from align.commands.verbs import RUN, VERBS

    verb, *words = argv if argv and argv[0] in VERBS else [RUN, *argv]
    code: int = import_module(f"align.commands.{verb}").main(words)
    return code


if __name__ == "__main__":
    program()
