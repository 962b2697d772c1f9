"""``python -m align report FOLDERS...``: what methods gain over a baseline, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from align.commands.parser import Parser, number_of
from align.runner.exits import DONE

MORE = """\
Intervals are 95% bootstrap intervals over prompts.  A win is a higher value than the baseline's on the same prompt, seed
and sample; a tie counts half.
"""
EXAMPLES = {
    "outputs/shapes_demo": "all runs in a folder, in the terminal",
    "outputs/a outputs/b --out outputs/compared --gallery": "two of them, also as pages",
    "outputs/mine --by Category --diversity": "by a column of the prompt file, and how much pictures differ",
}


def main(argv: Sequence[str]) -> int:
    """The verb; returns its exit code. Raises ConfigError."""
    parser = _parser()
    found = parser.read(argv)
    if found.gallery and found.out is None:
        parser.error("--gallery needs --out FOLDER")
    if found.features is not None and not found.diversity:
        parser.error("--features needs --diversity")
    from rich.console import Console

    from align.analysis.comparison import compare
    from align.analysis.groups import UnknownColumn
    from align.analysis.spread import measure
    from align.config.errors import ConfigError, suggestion
    from align.pages.contact_sheet import write_contact_sheet
    from align.pages.gallery import write_gallery
    from align.pages.report import write_report
    from align.pages.terminal import show_report
    from align.scoring.embeddings import embeddings
    from align.store.errors import ReportError

    diversity = partial(measure, embed=embeddings, features=found.features) if found.diversity else None
    try:
        made = compare(found.folders, found.baseline, by=found.by, diversity=diversity)
        written = write_report(made, found.out) if found.out else []
        if found.gallery:
            written.append(write_gallery(made, found.out / "gallery.html", limit=found.limit))
            written.append(write_contact_sheet(made, found.out / "contact_sheet.png"))
    except UnknownColumn as error:
        raise ConfigError(f"report: --by: {error}{suggestion(found.by, error.known, 'columns')}") from error
    except ReportError as error:
        raise ConfigError(f"report: {error}") from error
    console = Console()
    console.print(show_report(made))
    for path in written:
        console.print(str(path), markup=False, highlight=False, soft_wrap=True)
    return DONE


def _parser() -> Parser:
    parser = Parser("report", MORE, EXAMPLES)
    add = parser.add_argument
    add(
        "folders",
        nargs="+",
        type=Path,
        metavar="FOLDER",
        help="run folder, a folder of them, or the folder of a published table",
    )
    add(
        "--baseline",
        metavar="NAME",
        help="method, label, folder or row to compare with (default: the table's, the method 'none', else the first)",
    )
    add(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="write report.md, .tex and .html, CSV files and drawings there",
    )
    add(
        "--by",
        metavar="COLUMN",
        help="also compare within each group: a tag of the prompts such as Category, or seed, method, backbone, reward",
    )
    add(
        "--diversity",
        action="store_true",
        help="also measure how much the pictures of a prompt, and of a run, differ (reads all pictures)",
    )
    add(
        "--features",
        metavar="NAME",
        help="image embeddings to measure that in (default: shapes_pick or clip_vit_l14, by the backbone)",
    )
    add("--gallery", action="store_true", help="also write gallery.html and contact_sheet.png (needs --out)")
    add(
        "--limit",
        type=number_of,
        default=400,
        metavar="N",
        help="rows of pictures in the gallery (default: 400)",
    )
    return parser
