"""``python -m align cp GROUP/NAME NEW``: a preset of one's own, begun as a copy of another."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from align.commands.parser import Parser
from align.config.errors import ConfigError, suggestion
from align.config.places import conf_folder, config_file, group_choices
from align.config.schema import GROUPS
from align.runner.exits import DONE

MORE = """\
The copy is FOLDER/GROUP/NEW.yaml, FOLDER that of --config-dir, or else ./conf.  Nothing is ever replaced, and the command
that uses the copy is printed.
"""
EXAMPLES = {
    "method/dymo mine": "conf/method/mine.yaml, which method=mine then chooses",
    "experiment/shapes_demo mine -cd FOLDER": "into a folder of your own; from there too, if the preset is yours",
}


def main(argv: Sequence[str]) -> int:
    """The verb; returns its exit code. Raises ConfigError."""
    parser = Parser("cp", MORE, EXAMPLES)
    parser.add_argument(
        "preset", metavar="GROUP/NAME", help="what is copied: a choice of a group that --help lists"
    )
    parser.add_argument(
        "new", metavar="NEW", help="name of the copy: letters, digits, '_' and '-', a letter first"
    )
    parser.takes_configs(primary=False)
    found = parser.read(argv)
    group, _, name = found.preset.partition("/")
    if group not in GROUPS:
        parser.error(f"{found.preset}: there is no such group{suggestion(group, GROUPS, 'groups')}")
    folder = found.config_dir or Path("conf")
    given = folder if folder.is_dir() else None
    known = group_choices(group, given)
    if name not in known:
        parser.error(f"{found.preset}: there is no such {group}{suggestion(name, known)}")
    if not _is_name(found.new):
        parser.error(
            f"{found.new!r} is no name of a {group}: give letters, digits, '_' and '-', a letter first"
        )
    if found.new in known:
        there = config_file(group, found.new, given)
        parser.error(f"{group}={found.new} is there already, {there}: give another name")
    source = config_file(group, name, given)
    assert source is not None  # as it is among the choices
    text = _read(source)
    values = _checked(source, group, text)
    copy = folder / group / f"{found.new}.yaml"
    _write(copy, renamed(text, found.new))
    where = [] if folder.resolve() == conf_folder().resolve() else ["-cd", str(folder)]
    if "table" in values or group == "training":
        use = ["table" if "table" in values else "train", *where, found.new]
    else:
        verb = ["online"] if group in ("surrogate", "rounds") or "override /rounds:" in text else []
        use = [*verb, *where, f"{group}={found.new}"]
    print(copy, shlex.join(["python", "-m", "align", *use]), sep="\n")
    return DONE


def renamed(text: str, name: str) -> str:
    """A preset whose ``name``, which rows and folders call it, is another; all else stays as it is written."""
    own = r"^((?:training:\n  )?name:)[^\n#]*?(?=\s*(#|$))"  # a training's presets speak of other groups too
    return re.sub(own, rf"\1 {name}", text, count=1, flags=re.MULTILINE)


def _is_name(text: str) -> bool:
    """Whether YAML and the command line both read it as the text that it is."""
    words = ("null", "true", "false", "yes", "no", "on", "off", "nan", "inf", "y", "n")
    return re.fullmatch("[A-Za-z][A-Za-z0-9_-]{0,79}", text) is not None and text.lower() not in words


def _read(path: Path) -> str:
    from align.config.source import LARGEST
    from align.reading import read_text

    try:
        return read_text(path, largest=LARGEST)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cp: {path} cannot be read: {error}") from error


def _checked(path: Path, group: str, text: str) -> Mapping[str, Any]:
    """What a preset says. Raises ConfigError for one that could not be chosen, and so would be no good copy."""
    import yaml

    from align.config.no_code import COMMANDS_OWN, PRESET

    try:
        values = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError):
        values = None
    if not isinstance(values, Mapping):
        raise ConfigError(f"cp: {path} is no preset: mend the file's YAML")
    whole = values if group in ("experiment", "training") else {group: values}
    for option, what in COMMANDS_OWN.items():
        section, _, key = option.partition(".")
        inside = whole.get(section)
        value = inside.get(key) if isinstance(inside, Mapping) else None
        if value and value not in PRESET:
            raise ConfigError(
                f"cp: {path} gives {option}, which names {what} and which no file may: take it out there"
            )
    return values


def _write(path: Path, text: str) -> None:
    from align.writing import write_new

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_new(path, text.encode("utf-8"))
    except FileExistsError:
        if path.parent.is_dir():
            raise ConfigError(f"cp: {path} is there already: give another name") from None
        raise ConfigError(f"cp: {path} cannot be written: {path.parent} is no folder") from None
    except OSError as error:
        raise ConfigError(f"cp: {path} cannot be written: {error.strerror or error}") from error
