"""``python -m align gallery FOLDERS... --out FILE``: the pictures of several runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from align.analysis.comparison import compare
from align.commands.parser import OneLineParser, number_of
from align.config.errors import ConfigError
from align.pages.contact_sheet import write_contact_sheet
from align.pages.gallery import write_gallery
from align.store.errors import ReportError


def main(argv: Sequence[str]) -> int:
    """The command ``gallery``. Raises ConfigError."""
    parser = OneLineParser(
        prog="align gallery", description="Write a self-contained page of pictures side by side."
    )
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="FOLDER", help="run folder, or a folder of them"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the HTML file to write")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="also write a contact sheet, a PNG file")
    parser.add_argument("--baseline", metavar="NAME", help="method, label or folder to compare with")
    parser.add_argument(
        "--limit", type=number_of, default=400, metavar="N", help="rows of pictures (default: 400)"
    )
    options = parser.parse_args(argv)
    if options.sheet is not None and options.sheet.absolute() == options.out.absolute():
        raise ConfigError("gallery: --out and --sheet name one file: give two")
    try:
        made = compare(options.folders, options.baseline)
        print(write_gallery(made, options.out, limit=options.limit))
        if options.sheet is not None:
            print(write_contact_sheet(made, options.sheet))
    except ReportError as error:
        raise ConfigError(f"gallery: {error}") from error
    return 0
