"""The command line of a run: flags apart from overrides. Imports nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from align.config.errors import ConfigError, nearest

SUBCOMMANDS = ("doctor", "report", "gallery", "graph", "score", "table")


@dataclass(frozen=True)
class Command:
    """A parsed command line.

    Attributes:
        overrides: ``key=value`` texts as Hydra reads them.
        multirun: run every combination of comma-separated values.
        help: show the help and stop.
        show: print the configuration ("job", "hydra" or "all") and stop.
        version: print the version and stop.
        config_dir: further folder of config groups.
        config_name: the primary config.
        told: further ``key=value`` texts before ``overrides``, from a file (a table's rows), which may say less.
    """

    overrides: tuple[str, ...]
    multirun: bool = False
    help: bool = False
    show: str | None = None
    version: bool = False
    config_dir: Path | None = None
    config_name: str = "config"
    told: tuple[str, ...] = ()


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are :class:`ConfigError`: one line, no usage text."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage."""
        verb = self.prog.removeprefix("align").strip()
        raise ConfigError(f"{verb}: {message}; see python -m align {verb} --help" if verb else message)


def number_of(text: str) -> int:
    """A number of things on the command line: 1 or more."""
    if not text.isdecimal() or not 1 <= int(text[:20]) <= 10**9:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number from 1 to 1000000000")
    return int(text)


def parse(argv: Sequence[str]) -> Command:
    """Read a command line.

    Raises:
        ConfigError: for an unknown flag, or an argument that is no ``key=value``.
    """
    parser = OneLineParser(prog="align", add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--cfg", "-c", choices=("job", "hydra", "all"))
    parser.add_argument("--version", action="store_true")
    parser.add_argument("--verbose", "-v", action="store_true")  # of every command, see __main__
    parser.add_argument("--config-dir", "-cd", type=Path)
    parser.add_argument("--config-name", "-cn", default="config")
    flags = [flag for action in parser._actions for flag in action.option_strings]
    for argument in argv:
        name = argument.partition("=")[0]
        if name.startswith("-") and name not in flags:
            near = nearest(name, flags)
            hint = f"did you mean {' or '.join(near)}?" if near else f"flags: {', '.join(flags)}"
            raise ConfigError(f"unknown flag {name}; {hint}")
    found = parser.parse_intermixed_args(list(argv))
    for override in found.overrides:
        if "=" not in override and not override.startswith("~"):
            near = nearest(override, SUBCOMMANDS)
            hint = f"did you mean {near[0]}?" if near else f"give {override}=VALUE, or see --help"
            raise ConfigError(f"{override!r} is neither a command nor KEY=VALUE; {hint}")
    if found.config_dir is not None and not found.config_dir.is_dir():
        raise ConfigError(
            f"--config-dir {found.config_dir} is not a folder: give one that holds config groups"
        )
    return Command(
        tuple(found.overrides),
        found.multirun,
        found.help,
        found.cfg,
        found.version,
        found.config_dir,
        found.config_name,
    )
