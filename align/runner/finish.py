"""The end of a run: the table in the terminal, the pages to look at, the path of the results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from align.config.schema import Config
from align.output import tame
from align.store.errors import ReportError
from align.store.store import Store

if TYPE_CHECKING:
    from align.analysis.comparison import Comparison


def show_results(config: Config, store: Store, console: Console) -> None:
    """Print the summary of a run's own rows and where its results are; write its pages if asked for.  The store is
    closed.
    """
    from align.pages.terminal import show_run
    from align.store.csvfile import read_csv

    path = store.folder / "results.csv"
    if own := store.done | store.failed:
        rows = read_csv(path)  # which holds the rows of many items in less memory than the journal's do
        console.print(show_run(rows[rows["key"].isin(own)].reset_index(drop=True)))
    _path(console, path)
    counts = store.counts()
    if counts["remaining"]:
        console.print(f"{counts['remaining']} items are not done yet", highlight=False)
    elif config.run.gallery and store.done:
        from align.analysis.comparison import compare

        try:
            write_pages(compare([store.folder]), store.folder, console)
        except ReportError as error:
            console.print(str(error), markup=False, highlight=False, soft_wrap=True)


def show_comparison(folders: Sequence[Path], root: Path, console: Console) -> None:
    """Print the paired comparison of several finished runs and write their pages into ``root``."""
    from align.analysis.comparison import compare
    from align.pages.terminal import show_report

    try:
        made = compare(folders)
        console.print(show_report(made))
        write_pages(made, root, console)
    except ReportError as error:
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)


def write_pages(made: Comparison, into: Path, console: Console) -> None:
    """Write gallery.html and contact_sheet.png of some runs and print their paths. Raises ReportError."""
    from align.pages.contact_sheet import write_contact_sheet
    from align.pages.gallery import write_gallery

    _path(console, write_gallery(made, into / "gallery.html"))
    _path(console, write_contact_sheet(made, into / "contact_sheet.png"))


def _path(console: Console, path: Path) -> None:
    console.print(tame(str(path)), markup=False, highlight=False, soft_wrap=True)
