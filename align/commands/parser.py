"""The parser of every verb: one shape of help, one style of errors.  Imports nothing heavy."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from align.commands.verbs import RUN, VERBS
from align.config.command import PRIMARY, Command
from align.config.errors import ConfigError, nearest, suggestion

WIDTH = 110
"""Of the help, in characters."""


class Parser(argparse.ArgumentParser):
    """The command line of a verb; what is wrong with one is a ``ConfigError``, one line that says where help is.

    Args:
        verb: its name in ``VERBS``, which says what it is given and what it is for.
        more: further lines of its help.
        examples: what to type, and what that does.
    """

    def __init__(self, verb: str, more: str = "", examples: Mapping[str, str] | None = None) -> None:
        self.verb = "" if verb == RUN else verb
        told = VERBS[verb]
        prog = f"python -m align {self.verb}".strip()
        pairs = (examples or {}).items()
        told_of = [f"  {f'{prog} {words}'.strip()}\n      {what}" for words, what in pairs]
        super().__init__(
            prog=prog,
            usage=f"{prog} {told.arguments} [OPTIONS]",
            description=f"{told.summary[0].upper()}{told.summary[1:]}.\n\n{more}".strip(),
            epilog="\n".join(["examples:", *told_of]),
            formatter_class=_Shape,
            add_help=False,
            allow_abbrev=False,
        )
        self._positionals.title, self._optionals.title = "arguments", "options"
        always = self.add_argument_group("of every verb")
        # The help of a run lists config groups, the user's too.
        shows_help = "store_true" if verb == RUN else "help"
        always.add_argument("-h", "--help", action=shows_help, help="show this text")
        always.add_argument("-v", "--verbose", action="store_true", help="show tracebacks")  # see __main__
        always.add_argument("--version", action=_Version, nargs=0, help="show versions and commit")

    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        """Read a command line. Raises ConfigError."""
        flags = [flag for action in self._actions for flag in action.option_strings]
        for word in argv:
            name = word.partition("=")[0]
            if word == "--":
                break
            if name.startswith("-") and name not in flags and not re.match(r"-\d|-$", name):
                self.error(f"unknown flag {name}{suggestion(name, flags, 'flags')}")
        return self.parse_intermixed_args(list(argv))

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage."""
        said = f"{self.verb}: {message}" if self.verb else message
        raise ConfigError(f"{said}{'' if said.endswith('?') else ';'} see {self.prog} --help")

    def takes_configs(self, *, sweeps: bool = False, primary: bool = True) -> None:
        """Add the flags of a verb that composes configurations: one, or many; by any primary config."""
        if sweeps:
            self.add_argument(
                "-m", "--multirun", action="store_true", help="every combination of comma-separated values"
            )
        what = "further folder of config groups: your own"
        self.add_argument("-cd", "--config-dir", type=Path, metavar="FOLDER", help=what)
        if primary:
            what = "a primary config of your own there"
            self.add_argument("-cn", "--config-name", metavar="NAME", default=PRIMARY, help=what)

    def command(self, found: argparse.Namespace, overrides: Sequence[str]) -> Command:
        """What is to be composed. Raises ConfigError for a word that is no override, or a folder that is none."""
        for word in overrides:
            if "=" not in word and not word.startswith("~"):
                near = [] if self.verb else nearest(word, VERBS)
                hint = f"did you mean {near[0]}?" if near else f"give {word}=VALUE"
                self.error(f"{word!r} is {'no' if self.verb else 'neither a verb nor'} OPTION=VALUE; {hint}")
        if found.config_dir is not None and not found.config_dir.is_dir():
            raise ConfigError(
                f"--config-dir {found.config_dir} is not a folder: give one that holds config groups"
            )
        primary = getattr(found, "config_name", PRIMARY)
        return Command(tuple(overrides), getattr(found, "multirun", False), found.config_dir, primary)


class _Shape(argparse.RawDescriptionHelpFormatter):
    """Texts as they are written, and what an option is given told once."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=WIDTH)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        given = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {given}"


class _Version(argparse.Action):
    """Says the version and ends the command."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from align.version import version_line

        print(version_line())
        parser.exit()


def parse(argv: Sequence[str]) -> Command:
    """The words of a run, its flags ``-m``, ``-cd`` and ``-cn`` among them. Raises ConfigError."""
    parser = Parser(RUN)
    parser.add_argument("words", nargs="*")
    parser.takes_configs(sweeps=True)
    found = parser.read(argv)
    return parser.command(found, found.words)


def number_of(text: str) -> int:
    """A number of things on the command line: 1 or more."""
    if not text.isdecimal() or not 1 <= int(text[:20]) <= 10**9:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number from 1 to 1000000000")
    return int(text)
