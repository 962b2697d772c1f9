"""A table with our runs of its rows, and of a published one which column of ours answers which of the paper's, and how well."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.analysis.arms import Arm, load_arms
from align.analysis.paper_numbers import PaperRow, load_paper
from align.store.errors import ReportError, StoreError
from align.store.manifest import read_run
from align.store.table_plan import FileRow, TableFile

if TYPE_CHECKING:
    import pandas

NAMES = {"pickscore": "PickScore", "hpsv2": "HPSv2", "imagereward": "ImageReward", "aesthetic": "Aesthetics"}
"""What the paper calls its metrics, by the column of its file."""
TOYS = {
    "pickscore": "shapes_pick",
    "hpsv2": "shapes_hps",
    "imagereward": "shapes_imagereward",
    "aesthetic": "shapes_aesthetic",
}
"""The toy reward of the same architecture, which never stands under the metric's name."""
EXACT = "check_all"
"""Of the shapes world alone: nothing follows the checker, and the paper has no such column."""


@dataclass(frozen=True)
class Line:
    """A row of the table: what the file says of it, the paper's numbers, and our runs' label, if there is a run."""

    row: FileRow
    paper: PaperRow | None
    arm: str | None


@dataclass(frozen=True)
class Published:
    """A table with its runs: what its folder says, the paper's citation if there is one, and the rows, the baseline first."""

    file: TableFile
    citation: str
    lines: tuple[Line, ...]

    @property
    def columns(self) -> dict[str, str]:
        """Our column by the paper's metric."""
        known = [line.paper.values for line in self.lines if line.paper]
        metrics = list(dict.fromkeys(name for values in known for name in values))
        return {name: TOYS[name] if self.toys else name for name in metrics}

    @property
    def printed(self) -> bool:
        """Whether a paper has it."""
        return self.file.paper is not None

    @property
    def toys(self) -> bool:
        """Whether our rewards are those of the shapes world."""
        return self.file.scale == "shapes"

    def frame(self, summary: pandas.DataFrame, pairs: pandas.DataFrame) -> pandas.DataFrame:
        """The comparison as data, of a report's summary and pairs: one row a row of the table and metric.

        Columns: row, label, why_not, paper_row, paper_table, metric (the paper's), paper, paper_difference (to the
        baseline), column (ours), pictures, ours, ours_low, ours_high, optimised, pairs, difference, low, high, win_rate, win_low,
        win_high. What there is not is empty.
        """
        import pandas

        means = {str(row["label"]): row for row in summary.to_dict("records")}
        gains = {(str(row["arm"]), str(row["value"])): row for row in pairs.to_dict("records")}
        base = self.lines[0].paper
        columns = [*self.columns.items(), *((("", EXACT),) if self.toys else ())]
        rows: list[dict[str, Any]] = []
        for line in self.lines:
            mine = means.get(line.arm or "", {})
            optimised = str(mine.get("optimised") or "").split(";")
            for metric, column in columns:
                gain = gains.get((line.arm or "", column), {})
                found: dict[str, Any] = {
                    "row": line.row.key,
                    "label": line.row.label,
                    "why_not": line.row.why_not,
                    "paper_row": line.row.paper,
                    "paper_table": line.row.of_table if line.paper else None,
                    "metric": metric,
                    "paper": line.paper.values.get(metric) if line.paper else None,
                    "paper_difference": _difference(line.paper, base, metric),
                    "column": column,
                    "pictures": mine.get("n"),
                    **{f"ours{end}": mine.get(f"{column}{end}") for end in ("", "_low", "_high")},
                    "optimised": column in optimised,
                    **{name: gain.get(name) for name in _GAIN},
                }
                rows.append(found)
        return pandas.DataFrame(rows)


_GAIN = ("pairs", "difference", "low", "high", "win_rate", "win_low", "win_high")


def _difference(row: PaperRow | None, base: PaperRow | None, metric: str) -> float | None:
    """What the paper's row has more of a metric than its baseline; None for the baseline itself."""
    if row is None or base is None or row is base or metric not in row.values or metric not in base.values:
        return None
    return row.values[metric] - base.values[metric]


def load_published(
    folder: Path, file: TableFile, baseline: str | None
) -> tuple[Published, list[Arm], list[str]]:
    """The table that a folder's file says, the arms of its rows, the baseline (a key or label) first, and notes.

    Raises ReportError: the paper or the baseline is unknown, or no row has results.
    """
    paper = None if file.paper is None else load_paper(file.paper)
    asked = baseline or file.baseline
    wanted = next((row for row in file.rows if asked in (row.key, row.label)), None)
    if wanted is None:
        choices = ", ".join(row.key for row in file.rows)
        raise ReportError(f"baseline {asked!r} is no row of {file.name}: choose from {choices}")
    run = [row for row in file.rows if row.folder is not None]
    if not run:
        raise ReportError(f"no row of {file.name} has results yet: run `python -m align table {file.name}`")
    base = wanted if wanted in run else run[0]
    arms: list[Arm] = []
    lines: list[Line] = []
    notes: list[str] = []
    if base is not wanted:
        notes.append(f"{wanted.label}, the table's baseline, is not run: differences are to {base.label}")
    for row in sorted(file.rows, key=lambda row: row is not base):
        printed = paper.row(row.of_table, row.paper) if paper and row.paper and row.of_table else None
        if row.folder is not None:
            arm, more = _arm(folder / row.folder)
            arm.label = row.label
            arms.append(arm)
            notes += [f"{row.label}: {note}" for note in more]
        lines.append(Line(row, printed, row.label if row.folder is not None else None))
    return Published(file, paper.citation if paper else "", tuple(lines)), arms, notes


def _arm(folder: Path) -> tuple[Arm, list[str]]:
    """The arm of the last configuration of a run folder, and notes on what is incomplete."""
    arms, notes = load_arms([folder])
    try:
        last = (read_run(folder) or {}).get("config")
    except StoreError as error:
        raise ReportError(str(error)) from error
    return next((arm for arm in arms if arm.config == last), arms[0]), notes
