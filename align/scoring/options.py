"""The command line of ``align score``: which pictures, with which prompts, by which metrics, into which folder."""

from __future__ import annotations

import hashlib
import re
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from align.commands.parser import Command, OneLineParser
from align.config.convert import shown
from align.config.errors import ConfigError, suggestion
from align.config.schema import Config

DESCRIPTION = """\
Score the pictures that you have: a folder, a table, or the folder of an earlier run.

  PICTURES is a folder, and prompts come from --prompts TABLE, from prompts.csv (or metadata.csv, .tsv, .jsonl, .json, .parquet)
  inside it, or from a .txt file beside each picture; or a table with the columns image and prompt; or a run's folder, whose
  own results.csv gains the metrics unless run.folder=OTHER is given.  The same command again goes on.

  metrics=NAME (default: paper), metrics.rewards=[pickscore,...], metrics.checker=true     what is measured
  run.folder=FOLDER, run.root, run.device, run.threads, run.shared, run.extend, ...       where and how
  prompts.column=NAME (default: prompt)                                                    the table's column of prompts
"""
OPTIONS = (
    "metrics",
    "metrics.rewards",
    "metrics.checker",
    "prompts.column",
    "prompts.negative_column",
    "prompts.seed_column",
    "prompts.tag_columns",
    "run.folder",
    "run.root",
    "run.threads",
    "run.device",
    "run.plugins",
    "run.shared",
    "run.extend",
    "run.on_error",
    "run.verify",
    "run.gallery",
)
"""All others say how pictures are made."""
_OVERRIDE = re.compile(r"[+~]{0,2}[A-Za-z_][\w./@]*=|~")


@dataclass(frozen=True)
class Options:
    """A command line that was read.

    Attributes:
        pictures: the folder or table.
        prompts: the table of ``--prompts``.
        label: what reports shall call these pictures.
        out: where to put the table beside the folder.
        config: metrics and ``run``; its folder is null where none was given.
    """

    pictures: Path
    prompts: Path | None
    label: str | None
    out: Path | None
    config: Config


def read_options(argv: Sequence[str]) -> Options:
    """Read a command line. Raises ConfigError."""
    parser = OneLineParser(
        prog="align score",
        description=DESCRIPTION,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("what", nargs="*", metavar="PICTURES OPTION=VALUE")
    parser.add_argument(
        "--prompts", type=Path, metavar="TABLE", help="table of image and prompt for a folder"
    )
    parser.add_argument(
        "--label", metavar="NAME", help="whose pictures these are, for reports (default: by PICTURES)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="put a copy of results.csv there")
    parser.add_argument("--config-dir", type=Path, metavar="FOLDER", help="your own config groups")
    found = parser.parse_intermixed_args(list(argv))
    named = [text for text in found.what if not _OVERRIDE.match(text) or Path(text).exists()]
    if len(named) != 1:
        given = f", not {' '.join(map(shown, named))}" if named else ""
        raise ConfigError(f"score: give one folder of pictures, table or run's folder{given}")
    if found.label is not None and not found.label.strip():
        raise ConfigError("--label is empty: give a name, or leave it out")
    overrides = [text for text in found.what if text not in named]
    config = _config(overrides, found.config_dir)
    return Options(Path(named[0]).expanduser(), found.prompts, found.label, found.out, config)


def _config(overrides: list[str], config_dir: Path | None) -> Config:
    """The composition of runs, in which only some options are given."""
    from align.config.compose import jobs_of

    keys = [text.lstrip("+~").partition("=")[0] for text in overrides]
    for key in keys:
        if key not in OPTIONS:
            hint = suggestion(key, OPTIONS, "options")
            raise ConfigError(f"score takes no {shown(key)}, it makes no pictures{hint}")
    if "metrics" not in keys:
        overrides = [f"metrics={'none' if 'metrics.rewards' in keys else 'paper'}", *overrides]
    (job,) = jobs_of(Command(tuple(overrides), config_dir=config_dir))
    config = job.config
    if not config.metrics.rewards and not config.metrics.checker:
        raise ConfigError(
            f"metrics={config.metrics.name} measures nothing: give metrics=paper, or metrics.rewards=[NAME,...]"
        )
    folder = config.run.folder if "run.folder" in keys else None
    return replace(config, run=replace(config.run, folder=folder))


def default_folder(root: str, label: str, asked: Sequence[str]) -> Path:
    """``<root>/score-<label>-<digest of what was asked>``: the same for the same pictures, prompts and label."""
    digest = hashlib.sha256("\0".join(asked).encode("utf-8", "surrogatepass")).hexdigest()[:8]
    readable = re.sub(r"[^\w.+-]", "_", label, flags=re.ASCII)[:40]
    return Path(root or "/", f"score-{readable}-{digest}")
