"""Tables in the terminal: the report, and what a run says at its end."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table as Grid
from rich.text import Text

from align.analysis.summary import summary
from align.output import tame
from align.pages.document import Table, columns
from align.pages.numbers import DASH, Estimate, line, records
from align.pages.report import document
from align.pages.sections import FOOTNOTE, QUALITY, means_of, means_table
from align.store.columns import COSTS

if TYPE_CHECKING:
    import pandas

    from align.analysis.comparison import Comparison

LONGEST_NAME = 24
"""Letters of a row's name that stay together."""


def show_report(made: Comparison) -> Group:
    """A report."""
    shown = document(made)
    head = [Text(tame(text)) for text in shown.lead] if made.published else []
    grids = [grid(title, rows) for section in shown.sections for title, rows in section.tables().items()]
    below = [*shown.footnotes, *shown.notes]
    return Group(*head, *grids, *(Text(tame(text), style="dim") for text in below))


def show_run(rows: pandas.DataFrame) -> Group:
    """The rows of a run, see ``summary.summary``: quality with intervals, then costs of a picture."""
    summaries = summary(rows)
    shown = records(summaries.assign(label=_labels(summaries)))
    spent = {
        name: line({row["label"]: Estimate(row[name]) for row in shown if row[name] == row[name]})
        for name in COSTS
        if name in summaries and summaries[name].any()
    }
    parts: list[Any] = [grid(QUALITY, means_table(shown))]
    if any(one.mark for cells in means_of(shown).values() for one in cells.values()):
        parts.append(Text(FOOTNOTE, style="dim"))
    if spent:
        parts.append(grid("Cost of a picture (mean)", spent))
    return Group(*parts)


def _labels(summaries: pandas.DataFrame) -> list[str]:
    """A label for each row: the method, or method, backbone and reward where that is not unique."""
    columns = (map(str, summaries[name]) for name in ("method", "backbone", "reward"))
    keys: list[tuple[str, ...]] = list(zip(*columns, strict=True))
    if len({key[0] for key in keys}) == len(keys):
        return [key[0] or "?" for key in keys]
    return [" · ".join(part for part in key if part) or "?" for key in keys]


def grid(title: str, rows: Table) -> Group:
    """A titled table, turned so that it has the fewer columns."""
    names = columns(rows)
    lines = {
        tame(label): {tame(name): _narrow(str(cells.get(name, DASH))) for name in names}
        for label, cells in rows.items()
    }
    if len(names) > len(rows):
        lines = {name: {label: cells[name] for label, cells in lines.items()} for name in map(tame, names)}
    return Group(Text(tame(title), style="bold"), _Parts(lines))


class _Parts:
    """Cells by row and column, in as many tables below each other as the window has no room for side by side."""

    def __init__(self, lines: Mapping[str, Mapping[str, str]]) -> None:
        self.lines = lines
        self.name = min(_longest(map(_in_a_line, lines)), LONGEST_NAME)
        heads = next(iter(lines.values()), {})
        self.widths = {
            head: _longest([_in_a_line(head), *(cells[head] for cells in lines.values())]) for head in heads
        }

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rest = list(self.widths)
        while rest:
            number = len(rest)
            while number > 1 and self._least(rest[:number]) > options.max_width:
                number -= 1
            yield self._table(rest[:number])
            rest = rest[number:]

    def _least(self, heads: Sequence[str]) -> int:
        """Width of a table of these columns in which no word is broken."""
        return 1 + self.name + sum(3 + self.widths[head] for head in heads)

    def _table(self, heads: Sequence[str]) -> Grid:
        table = Grid(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        table.add_column("", overflow="fold", min_width=self.name)
        for head in heads:
            table.add_column(
                Text(_in_a_line(head)), justify="right", overflow="fold", min_width=self.widths[head]
            )
        for label, cells in self.lines.items():
            table.add_row(Text(_in_a_line(label)), *(Text(cells[head]) for head in heads))
        return table


def _longest(texts: Iterable[str]) -> int:
    """Letters of the longest word."""
    return max((len(word) for text in texts for word in text.split()), default=0)


def _in_a_line(text: str) -> str:
    return tame(text.replace("\n", "?"))


def _narrow(text: str) -> str:
    """A cell that breaks only between a mean and its interval."""
    return re.sub(r"(\[[^],]*), ", r"\1,", tame(text))
