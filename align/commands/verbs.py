"""The verbs: what each is given, and what it is for.  The module ``align.commands.VERB`` does it.

``--help`` of the command and of each verb, the dispatch and the tests read this table.
"""

from __future__ import annotations

from typing import NamedTuple


class Verb(NamedTuple):
    """What it is given, its options aside, and what it is for."""

    arguments: str
    summary: str


RUN = "run"
"""The verb of a command line that names none."""
VERBS = {
    RUN: Verb("[GROUP=NAME] [OPTION=VALUE] ...", "make pictures; the same command again goes on"),
    "table": Verb(
        "NAME... [OPTION=VALUE] ...", "run tables: a paper's beside its numbers, or methods at equal cost"
    ),
    "online": Verb(
        "blackbox=NAME [OPTION=VALUE] ...", "learn what a black box likes, by asking it in rounds"
    ),
    "score": Verb("PICTURES [OPTION=VALUE] ...", "measure pictures that are there: a folder, a table, a run"),
    "train": Verb("NAME [GROUP=NAME] [OPTION=VALUE] ...", "train a backbone, or what judges it: spo, spm"),
    "report": Verb("FOLDER...", "compare runs picture by picture"),
    "gallery": Verb("FOLDER... --out FILE", "look at the pictures of runs side by side"),
    "graph": Verb("PROMPT [OPTION=VALUE] ...", "show which words of a prompt DyMO pairs"),
    "doctor": Verb(
        "[GROUP=NAME] [OPTION=VALUE] ...",
        "say what is installed, what is missing, and what a method is made of",
    ),
    "cp": Verb("GROUP/NAME NEW", "copy a preset, to edit it"),
}
