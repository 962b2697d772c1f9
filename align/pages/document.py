"""A report as Markdown, LaTeX and HTML: title, lines above the tables, tables of texts, figures, notes."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from align.pages.page import environment
from align.store.csvfile import visible

Cells = Mapping[str, Mapping[str, str]]
"""A table of texts: row name, column name; what a row lacks is a dash."""

DASH = "–"
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "–": "--", "−": "$-$", "×": r"$\times$", "†": r"$\dagger$", "…": r"\dots{}",
}  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """A drawing beside the report: file name, title, what it shows."""

    name: str
    title: str
    caption: str


@dataclass(frozen=True)
class Document:
    """A report in texts, none of them marked up.

    Attributes:
        title: of the page.
        lead: what has to be known before the tables are read, a line each.
        sections: tables by title, in their order.
        footnotes: what marks in the tables mean.
        figures: drawings.
        notes: what was left out or is incomplete.
    """

    title: str
    lead: list[str]
    sections: Mapping[str, Cells]
    footnotes: list[str] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def columns_of(rows: Cells) -> list[str]:
    """The names of all columns, in order of appearance."""
    return list(dict.fromkeys(name for cells in rows.values() for name in cells))


def markdown(document: Document) -> str:
    """As Markdown; the figures lie beside the file."""
    lines = [f"# {markdown_text(document.title)}", ""]
    for line in document.lead:
        lines += [markdown_text(line), ""]
    for title, rows in document.sections.items():
        columns = columns_of(rows)
        lines += [f"## {markdown_text(title)}", ""]
        lines += [f"| | {' | '.join(map(markdown_text, columns))} |", f"|---|{'---:|' * len(columns)}"]
        for label, cells in rows.items():
            texts = " | ".join(markdown_text(cells.get(name, DASH)) for name in columns)
            lines.append(f"| {markdown_text(label)} | {texts} |")
        lines.append("")
    lines += [markdown_text(line) + "\n" for line in document.footnotes]
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
    lines += [f"% {one_line(line)}" for line in document.lead]
    for title, rows in document.sections.items():
        columns = columns_of(rows)
        lines += ["", r"\begin{table}", r"\centering", rf"\caption{{{latex_text(title)}}}"]
        lines += [r"\resizebox{\linewidth}{!}{%", rf"\begin{{tabular}}{{l{'r' * len(columns)}}}", r"\toprule"]
        lines.append(" & ".join(["", *map(latex_text, columns)]) + r" \\")
        lines.append(r"\midrule")
        for label, cells in rows.items():
            texts = [label, *(cells.get(name, DASH) for name in columns)]
            lines.append(" & ".join(map(latex_text, texts)) + r" \\")
        lines += [r"\bottomrule", r"\end{tabular}}", r"\end{table}"]
    lines += [
        "",
        *(rf"\par\footnotesize {latex_text(line)}" for line in [*document.lead, *document.footnotes]),
    ]
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
    figures = [
        {
            "title": figure.title,
            "caption": figure.caption,
            "source": "data:image/svg+xml;base64,"
            + base64.b64encode((folder / figure.name).read_bytes()).decode(),
        }
        for figure in document.figures
    ]
    sections = [
        {"title": title, "columns": columns_of(rows), "rows": rows}
        for title, rows in document.sections.items()
    ]
    page = environment().get_template("report.html.jinja")
    return readable_page(page.render(document=document, sections=sections, figures=figures, dash=DASH))


def readable_page(text: str) -> str:
    """A page whose control characters, line ends aside, are shown as escapes."""
    return "\n".join(visible(line) for line in text.split("\n"))
