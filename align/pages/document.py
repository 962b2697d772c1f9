"""A report as Markdown, LaTeX and HTML: title, lines above the tables, tables of texts, figures, notes.

Values stand down and arms across, so that a page is as wide as there are arms; where these are many it is turned.  In LaTeX
methods are rows always, as papers have them.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from align.pages.numbers import DASH, Cell
from align.pages.page import render
from align.store.csvfile import visible

Table = Mapping[str, Mapping[str, Cell | str]]
"""Cells by row and column; what a row lacks is a dash."""

MOST_ACROSS = 6
"""Arms that stand across on a page."""
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "–": "--", "−": "$-$", "×": r"$\times$", "√": r"$\surd$", "†": r"$\dagger$", "…": r"\dots{}",
}  # fmt: skip


@dataclass(frozen=True)
class Section:
    """A table."""

    title: str
    rows: Table
    gains: Table = field(default_factory=dict)
    """Differences of some of them to the baseline: below them on a page, elsewhere a table of their own."""
    gains_title: str = ""
    arms: bool = True
    """Whether the columns are the arms, so that the table may be turned."""

    def columns(self) -> list[str]:
        return columns(self.rows)

    def tables(self) -> dict[str, Table]:
        """The tables by title where each cell has one text."""
        return {self.title: self.rows} | ({self.gains_title: self.gains} if self.gains else {})

    def turned(self) -> Section:
        """With rows and columns exchanged."""
        return replace(self, rows=_turned(self.rows), gains=_turned(self.gains), arms=False)

    def for_page(self) -> Section:
        """As it stands on a page."""
        return self.turned() if self.arms and len(self.columns()) > MOST_ACROSS else self


@dataclass(frozen=True)
class Figure:
    """A drawing beside the report: file name, title, what it shows."""

    name: str
    title: str
    caption: str


@dataclass(frozen=True)
class Document:
    """A report in texts, none of them marked up."""

    title: str
    lead: list[str]
    """What has to be known before the tables are read, a line each."""
    sections: list[Section]
    footnotes: list[str] = field(default_factory=list)
    """What marks in the tables mean."""
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What was left out or is incomplete."""


def columns(rows: Table) -> list[str]:
    """The names of all columns, in order of appearance."""
    return list(dict.fromkeys(name for cells in rows.values() for name in cells))


def _turned(rows: Table) -> Table:
    names = columns(rows)
    return {name: {label: cells[name] for label, cells in rows.items() if name in cells} for name in names}


def _grid(rows: Table) -> list[list[str]]:
    """The texts of a table, line by line, the names of columns and rows among them."""
    names = columns(rows)
    lines = [[label, *(str(cells.get(name, DASH)) for name in names)] for label, cells in rows.items()]
    return [["", *names], *lines]


def markdown(document: Document) -> str:
    """As Markdown; the figures lie beside the file."""
    lines = [f"# {markdown_text(document.title)}", ""]
    for text in document.lead:
        lines += [markdown_text(text), ""]
    for section in document.sections:
        for title, rows in section.for_page().tables().items():
            head, *below = (" | ".join(map(markdown_text, texts)) for texts in _grid(rows))
            lines += [f"## {markdown_text(title)}", "", f"|{head} |", f"|---|{'---:|' * len(columns(rows))}"]
            lines += [*(f"| {texts} |" for texts in below), ""]
    lines += [markdown_text(text) + "\n" for text in document.footnotes]
    for figure in document.figures:
        lines += [f"## {figure.title}", "", figure.caption, "", f"![]({figure.name})", ""]
    if document.notes:
        lines += ["## Notes", "", *(f"- {markdown_text(note)}" for note in document.notes), ""]
    return "\n".join(lines)


def markdown_text(text: str) -> str:
    """A text that Markdown shows as it is, on one line."""
    for special in "\\`|*_[":
        text = text.replace(special, f"\\{special}")
    return " ".join(text.splitlines()).replace("<", "&lt;")


def latex(document: Document) -> str:
    """As LaTeX tables for inclusion in a paper; they need ``booktabs`` and ``graphicx``."""
    lines = [f"% {one_line(document.title)}", r"% needs \usepackage{booktabs,graphicx}"]
    lines += [f"% {one_line(text)}" for text in document.lead]
    for section in document.sections:
        for title, rows in (section.turned() if section.arms else section).tables().items():
            head, *below = (" & ".join(map(latex_text, texts)) + r" \\" for texts in _grid(rows))
            lines += ["", r"\begin{table}", r"\centering", rf"\caption{{{latex_text(title)}}}"]
            lines += [r"\resizebox{\linewidth}{!}{%", rf"\begin{{tabular}}{{l{'r' * len(columns(rows))}}}"]
            lines += [r"\toprule", head, r"\midrule", *below]
            lines += [r"\bottomrule", r"\end{tabular}}", r"\end{table}"]
    below = [*document.lead, *document.footnotes]
    lines += ["", *(rf"\par\footnotesize {latex_text(text)}" for text in below)]
    return "\n".join(lines) + "\n"


def latex_text(text: str) -> str:
    """A text that LaTeX sets as it is."""
    # A bracket that starts a cell would be the argument of the line break before it.
    return re.sub(r"^\[", "{[}", "".join(_LATEX.get(character, character) for character in one_line(text)))


def one_line(text: str) -> str:
    """A text without line ends and control characters."""
    return " ".join(visible(text).split())


def html(document: Document, folder: Path) -> str:
    """As a page that needs nothing else: the figures, read from ``folder``, are inside it. Raises OSError."""
    sources = {}
    for figure in document.figures:
        data = base64.b64encode((folder / figure.name).read_bytes()).decode()
        sources[figure.name] = f"data:image/svg+xml;base64,{data}"
    sections = [section.for_page() for section in document.sections]
    return render("report.html.jinja", document=document, sections=sections, sources=sources)
