"""``python -m align score PICTURES``: values of metrics for pictures that are there already."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from align.commands.parser import Parser

if TYPE_CHECKING:
    from align.scoring.options import Options

MORE = """\
PICTURES is a folder, and prompts come from --prompts TABLE, from prompts.csv (or metadata.csv, .tsv, .jsonl, .json,
.parquet) inside it, or from a .txt file beside each picture; or a table with the columns image and prompt; or a run's
folder, whose own results.csv gains the metrics unless run.folder=OTHER is given.  The same command again goes on.
"""
EXAMPLES = {
    "pictures/ --prompts prompts.csv": "a folder and a table of image and prompt, by metrics=paper",
    "outputs/my-run metrics=shapes": "a run's own table gains the columns; nothing is made again",
    "pictures/ metrics.rewards=[pickscore,aesthetic] run.folder=outputs/scores": "what is measured, and where it goes",
    "table.csv metrics.checker=true prompts.column=caption": "a table whose prompts are in another column",
}
_OVERRIDE = re.compile(r"[+~]{0,2}[A-Za-z_][\w./@]*=|~")


def main(argv: Sequence[str]) -> int:
    """The verb; returns its exit code. Raises ConfigError, FilesMissing before any work."""
    options = read_options(argv)
    from align.scoring.score import score

    return score(options)


def read_options(argv: Sequence[str]) -> Options:
    """Read the command line. Raises ConfigError."""
    parser = Parser("score", MORE, EXAMPLES)
    add = parser.add_argument
    what = "metrics, and those of prompts and run that scores have"
    add("words", nargs="*", metavar="PICTURES | OPTION=VALUE", help=what)
    add("--prompts", type=Path, metavar="TABLE", help="table of image and prompt for a folder")
    add("--label", metavar="NAME", help="whose pictures these are, for reports (default: by PICTURES)")
    add("--out", type=Path, metavar="FILE", help="put a copy of results.csv there")
    parser.takes_configs()
    found = parser.read(argv)
    named = [text for text in found.words if not _OVERRIDE.match(text) or Path(text).exists()]
    from align.config.convert import shown
    from align.scoring.options import Options, score_config

    if len(named) != 1:
        given = f", not {' '.join(map(shown, named))}" if named else ""
        parser.error(f"give one folder of pictures, table or run's folder{given}")
    if found.label is not None and not found.label.strip():
        parser.error("--label is empty: give a name, or leave it out")
    config = score_config(parser.command(found, [text for text in found.words if text not in named]))
    return Options(Path(named[0]).expanduser(), found.prompts, found.label, found.out, config)
