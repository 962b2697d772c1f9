"""The command ``python -m align``: read, compose, check, dispatch.  Imports nothing heavy by itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from align.config.errors import ConfigError
from align.errors import WeightsError
from align.runner.exits import CONFIGURATION, INTERRUPTED, MISSING_WEIGHTS, MissingWeights


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code (see ``align.runner.exits``)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        return dispatch(argv)
    except ConfigError as error:
        say(f"align: {error}")
        return CONFIGURATION
    except MissingWeights as error:
        say(str(error))
        return MISSING_WEIGHTS
    except WeightsError as error:
        say(f"align: {' '.join(str(error).split())}")
        return MISSING_WEIGHTS
    except KeyboardInterrupt:
        say("align: interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def say(text: str) -> None:
    """Print on stderr, whatever characters it holds."""
    print(text.encode("utf-8", "backslashreplace").decode("utf-8"), file=sys.stderr)


def dispatch(argv: list[str]) -> int:
    """Choose what a command line asks for; returns the exit code. Raises ConfigError, MissingWeights."""
    if argv and argv[0] == "doctor":
        from align.doctor import main as doctor

        return doctor(argv[1:])
    if argv and argv[0] == "report":
        from align.results.report import main as report

        return report(argv[1:])
    if argv and argv[0] == "table":
        from align.runner.table import main as table

        return table(argv[1:])
    if argv and argv[0] == "score":
        from align.scoring.command import main as score

        return score(argv[1:])
    if argv and argv[0] == "graph":
        from align.runner.show_graph import main as show_graph

        return show_graph(argv[1:])
    if argv and argv[0] == "gallery":
        return gallery(argv[1:])
    from align.config.command import parse

    command = parse(argv)
    if command.help:
        from align.config.help import help_text

        print(help_text(command.config_dir), end="")
        return 0
    from align.config.compose import jobs_of

    jobs = jobs_of(command)
    if command.show is not None:
        from align.config.show import show

        print(show(jobs, command.show), end="")
        return 0
    from align.runner.launch import launch

    return launch(command, jobs)


def gallery(argv: Sequence[str]) -> int:
    """The command ``gallery``. Raises ConfigError."""
    from align.config.command import OneLineParser

    parser = OneLineParser(
        prog="align gallery", description="Write a self-contained page of pictures side by side."
    )
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="FOLDER", help="run folder, or a folder of them"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the HTML file to write")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="also write a contact sheet, a PNG file")
    parser.add_argument("--baseline", metavar="NAME", help="method, label or folder to compare with")
    parser.add_argument("--limit", type=int, default=400, metavar="N", help="rows of pictures (default: 400)")
    options = parser.parse_args(argv)
    from align.results.contact_sheet import write_contact_sheet
    from align.results.errors import ReportError
    from align.results.gallery import write_gallery

    try:
        print(write_gallery(options.folders, options.out, options.baseline, limit=options.limit))
        if options.sheet is not None:
            write_contact_sheet(options.folders, options.sheet, options.baseline)
            print(options.sheet)
    except ReportError as error:
        raise ConfigError(f"gallery: {error}") from error
    return 0


if __name__ == "__main__":
    sys.exit(main())
