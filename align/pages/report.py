"""A comparison as a report: pages, tables as CSV files and drawings."""

from __future__ import annotations

from pathlib import Path

from align import writing
from align.analysis.comparison import Comparison
from align.pages import beside_paper
from align.pages.document import Document, Figure, html, latex, markdown
from align.pages.plots import plot_differences, plot_traces, plot_tradeoff
from align.pages.sections import FOOTNOTE, sections, starred
from align.store.columns import is_check
from align.store.csvfile import frame_csv
from align.store.errors import ReportError

PAGES = ("report.md", "report.tex", "report.html")
TRACES = "traces.svg"
TRADEOFF = "tradeoff.svg"
DIFFERENCES = "differences.svg"
INTERVALS = "Intervals are 95% bootstrap intervals over prompts (10,000 resamples, seeded)."
EXPLANATION = f"{INTERVALS} A win is a higher value than the baseline's on the same prompt, seed and sample; a tie counts half."


def document(made: Comparison) -> Document:
    """The report in texts, its figures those that ``write_report`` draws."""
    marks = [EXPLANATION, *([FOOTNOTE] if starred(made) else [])]
    title, lead, notes = "Report", [f"Baseline: {made.baseline}."], list(made.notes)
    if made.published is not None:
        title = beside_paper.title(made.published)
        lead = [*beside_paper.lead(made.published, made.beside_paper()), *lead]
        marks += [beside_paper.DOUBT] if made.published.printed else []
        notes += beside_paper.notes(made.published)
    return Document(title, lead, sections(made), marks, _figures(made), notes)


def write_report(made: Comparison, out: Path) -> list[Path]:
    """Write report.md, .tex and .html, the tables as CSV files and the drawings into the folder ``out``.

    Returns the paths of pages and drawings. Raises ReportError: the folder is not writable.
    """
    shown = document(made)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, table in made.frames().items():
            writing.write_text(out / name, frame_csv(table))
        if values := _drawn_values(made):
            plot_tradeoff(made.pairs, made.costs, values, out / TRADEOFF)
            plot_differences(made.prompts, values, out / DIFFERENCES)
        if len(made.traces):
            plot_traces(made.traces, out / TRACES)
        texts = (markdown(shown), latex(shown), html(shown, out))
        for page, text in zip(PAGES, texts, strict=True):
            writing.write_text(out / page, text)
    except OSError as error:
        raise ReportError(f"cannot write to {out}: {error.strerror or error}") from error
    return [out / name for name in [*PAGES, *(figure.name for figure in shown.figures)]]


def _figures(made: Comparison) -> list[Figure]:
    marks = " Hollow marks: the method optimised this itself." if made.pairs["optimised"].any() else ""
    gain = Figure(TRADEOFF, "Gain and cost", f"Differences with their 95% intervals.{marks}")
    single = Figure(DIFFERENCES, "Prompts", "Differences of single prompts, sorted for each method.")
    steps = Figure(TRACES, "Traces", "Mean over pictures and the range of 80% of them.")
    return [*([gain, single] if _drawn_values(made) else []), *([steps] if len(made.traces) else [])]


def _drawn_values(made: Comparison) -> list[str]:
    """The values that are drawn: of the checker's verdicts only the one that sums them up."""
    names = list(dict.fromkeys(map(str, made.pairs["value"])))
    return [name for name in names if name == "check_all" or not is_check(name)]
