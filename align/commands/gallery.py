"""``python -m align gallery FOLDER... --out FILE``: the pictures of several runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from align.commands.parser import Parser, number_of
from align.runner.exits import DONE

MORE = (
    "The page is one file, pictures included: it opens from a disk or a web server alike, and loads nothing."
)
EXAMPLES = {
    "outputs/shapes_demo --out look.html": "all runs in a folder",
    "outputs/a outputs/b --out look.html --sheet look.png": "two of them, and a contact sheet",
}


def main(argv: Sequence[str]) -> int:
    """The verb; returns its exit code. Raises ConfigError."""
    parser = Parser("gallery", MORE, EXAMPLES)
    add = parser.add_argument
    add("folders", nargs="+", type=Path, metavar="FOLDER", help="run folder, or a folder of them")
    add("--out", type=Path, required=True, metavar="FILE", help="the HTML file to write")
    add("--sheet", type=Path, metavar="FILE", help="also write a contact sheet, a PNG file")
    add("--baseline", metavar="NAME", help="method, label or folder to compare with")
    add("--limit", type=number_of, default=400, metavar="N", help="rows of pictures (default: 400)")
    found = parser.read(argv)
    if found.sheet is not None and found.sheet.absolute() == found.out.absolute():
        parser.error("--out and --sheet name one file: give two")
    from align.analysis.comparison import compare
    from align.config.errors import ConfigError
    from align.pages.contact_sheet import write_contact_sheet
    from align.pages.gallery import write_gallery
    from align.store.errors import ReportError

    try:
        made = compare(found.folders, found.baseline)
        print(write_gallery(made, found.out, limit=found.limit))
        if found.sheet is not None:
            print(write_contact_sheet(made, found.sheet))
    except ReportError as error:
        raise ConfigError(f"gallery: {error}") from error
    return DONE
