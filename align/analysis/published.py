"""A published table beside our runs of its rows: which column of ours answers which of the paper's, and how well."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.analysis.arms import Arm, load_arms
from align.analysis.paper_numbers import PaperRow, load_paper
from align.analysis.summary import number, with_interval
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
NOT_RUN = "not run"
DOUBT = "† of the paper: see the notes"
TOY_LEAD = (
    "Made on the shapes world: whatever model a row names, ours is the small one that comes along, and its rewards are toys "
    "under their own names. The paper's absolute numbers are not comparable with ours: compare signs and order of the "
    "differences, and mind the checker (check_all), which no method follows."
)


@dataclass(frozen=True)
class Line:
    """A row of the table: what the file says of it, the paper's numbers, and our runs' label, if there is a run."""

    row: FileRow
    paper: PaperRow | None
    arm: str | None


@dataclass(frozen=True)
class Published:
    """A table with its runs.

    Attributes:
        file: what its folder says.
        citation: of the paper.
        lines: the rows, the baseline first.
    """

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
    def toys(self) -> bool:
        """Whether our rewards are those of the shapes world."""
        return self.file.scale == "shapes"

    @property
    def title(self) -> str:
        """Of the page."""
        return f"Table {self.file.number}: {self.file.title}"

    def frame(self, summary: pandas.DataFrame, pairs: pandas.DataFrame) -> pandas.DataFrame:
        """The comparison as data: one row a row of the table and metric.

        Columns: row, label, why_not, paper_row, paper_table, metric (the paper's), paper, paper_difference (to the
        baseline), column (ours), pictures, ours, ours_low, ours_high, optimised, pairs, difference, low, high, win_rate, win_low,
        win_high. What there is not is empty.

        Args:
            summary: of the report, a row an arm.
            pairs: of the report, a row an arm and value.
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
                rows.append(
                    {
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
                        "ours": mine.get(column),
                        "ours_low": mine.get(f"{column}_low"),
                        "ours_high": mine.get(f"{column}_high"),
                        "optimised": column in optimised,
                        **{name: gain.get(name) for name in _GAIN},
                    }
                )
        return pandas.DataFrame(rows)

    def sections(self, frame: pandas.DataFrame) -> dict[str, dict[str, dict[str, str]]]:
        """The comparison as texts: the table itself, differences to the baseline, agreement."""
        values: dict[str, dict[str, str]] = {}
        gains: dict[str, dict[str, str]] = {}
        doubtful = {line.row.label: bool(line.paper and line.paper.doubt) for line in self.lines}
        base = self.lines[0].row.label
        for cell in map(_known, frame.to_dict("records")):
            label, metric, column = cell["label"], cell["metric"], cell["column"]
            theirs, ours = f"{NAMES.get(metric, metric)}, paper", f"{column}, ours"
            row, gain = values.setdefault(label, {}), gains.setdefault(label, {})
            row["pictures"] = number(math.nan) if cell["pictures"] is None else str(int(cell["pictures"]))
            mark, star = "†" if doubtful[label] else "", "*" if cell["optimised"] else ""
            if metric:
                row[theirs] = _printed(cell["paper"], mark)
                gain[theirs] = _printed(cell["paper_difference"], mark, signed=True)
            missing = NOT_RUN if cell["why_not"] else number(math.nan)
            row[ours], gain[ours] = missing, "baseline" if label == base else missing
            if cell["ours"] is not None:
                row[ours] = with_interval(cell["ours"], cell["ours_low"], cell["ours_high"], star)
            if cell["difference"] is not None:
                gain[ours] = with_interval(cell["difference"], cell["low"], cell["high"], star, signed=True)
        return {
            f"{self.title}, paper and ours (mean, 95% interval)": values,
            f"Difference to {base}, paper and ours (paired, 95% interval)": gains,
            "Agreement of the differences": self._agreement(frame),
        }

    def skipped(self) -> dict[str, dict[str, str]]:
        """The rows without a run of ours, and why."""
        return {line.row.label: {"why": line.row.why_not} for line in self.lines if line.row.why_not}

    def seconds(self) -> dict[str, str]:
        """The paper's time of a picture by row, where it tells any."""
        times = {line.row.label: line.paper.seconds for line in self.lines if line.paper}
        return {label: number(time) for label, time in times.items() if time is not None}

    def lead(self, frame: pandas.DataFrame) -> list[str]:
        """What stands above the table: the source, and whether the baselines agree."""
        return [self.citation, TOY_LEAD if self.toys else self._baseline_line(frame)]

    def notes(self) -> list[str]:
        """Doubts about the paper's numbers, and in what our runs differ from the paper's."""
        doubts: dict[str, list[str]] = {}
        for line in self.lines:
            if line.paper and line.paper.doubt:
                doubts.setdefault(line.paper.doubt, []).append(line.row.label)
        known = [f"† {', '.join(labels)}: {doubt}" for doubt, labels in doubts.items()]
        return known + [
            f"{line.row.label}: {line.row.note}" for line in self.lines if line.row.note and line.arm
        ]

    def _baseline_line(self, frame: pandas.DataFrame) -> str:
        """Whether the paper's means of the baseline lie within our intervals."""
        base = self.lines[0]
        off, checked = [], 0
        for cell in map(_known, frame[frame["row"] == base.row.key].to_dict("records")):
            if cell["paper"] is None or cell["ours"] is None or cell["ours_low"] is None:
                continue
            checked += 1
            if not cell["ours_low"] <= cell["paper"] <= cell["ours_high"]:
                ours = with_interval(cell["ours"], cell["ours_low"], cell["ours_high"])
                by = number(cell["ours"] - cell["paper"], signed=True)
                off.append(f"{NAMES[cell['metric']]} {ours} against {_printed(cell['paper'])} ({by})")
        if off:
            return (
                f"Our baseline is not the paper's ({base.row.label}): {'; '.join(off)}. "
                "So absolute numbers are not comparable either; compare differences to the baseline."
            )
        if not checked:
            return f"Whether our baseline is the paper's is not known: {base.row.label} has no intervals on one side."
        pictures = int(frame[frame["row"] == base.row.key]["pictures"].iloc[0])
        return (
            f"Our baseline agrees with the paper's ({base.row.label}): "
            f"its {checked} means lie within our intervals of {pictures} pictures."
        )

    def _agreement(self, frame: pandas.DataFrame) -> dict[str, dict[str, str]]:
        """For each metric in how many rows our difference has the paper's sign, and how many pairs of rows its order."""
        cells: dict[str, dict[str, str]] = {}
        for metric, column in self.columns.items():
            rows = [_known(row) for row in frame[frame["metric"] == metric].to_dict("records")]
            both = [row for row in rows if row["paper"] is not None and row["ours"] is not None]
            moved = [
                row for row in both if row["difference"] is not None and row["paper_difference"] is not None
            ]
            if not moved:
                continue
            same = [row for row in moved if row["difference"] * row["paper_difference"] > 0]
            sure = [row for row in same if row["low"] is not None and row["low"] * row["high"] > 0]
            order = [
                (one["paper"] - two["paper"]) * (one["ours"] - two["ours"])
                for one, two in combinations(both, 2)
                if one["paper"] != two["paper"]
            ]
            cells[f"{NAMES[metric]}, {column}" if self.toys else NAMES[metric]] = {
                "same sign": f"{len(same)} of {len(moved)} rows",
                "interval without zero": f"{len(sure)} of these",
                "same order": f"{sum(product > 0 for product in order)} of {len(order)} pairs of rows",
            }
        return cells


_GAIN = ("pairs", "difference", "low", "high", "win_rate", "win_low", "win_high")


def _difference(row: PaperRow | None, base: PaperRow | None, metric: str) -> float | None:
    """What the paper's row has more of a metric than its baseline; None for the baseline itself."""
    if row is None or base is None or row is base or metric not in row.values or metric not in base.values:
        return None
    return row.values[metric] - base.values[metric]


def load_published(
    folder: Path, file: TableFile, baseline: str | None
) -> tuple[Published, list[Arm], list[str]]:
    """A table with the arms of its rows, the baseline first, and notes.

    Args:
        folder: that holds the file.
        file: what it says.
        baseline: key or label of another row to compare with.

    Raises:
        ReportError: the paper or the baseline is unknown, or no row has results.
    """
    paper = load_paper(file.paper)
    wanted = _baseline_row(file, baseline)
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
        printed = paper.row(row.of_table, row.paper) if row.paper is not None else None
        if row.folder is not None:
            arm, more = _arm(folder / row.folder)
            arm.label = row.label
            arms.append(arm)
            notes += [f"{row.label}: {note}" for note in more]
        lines.append(Line(row, printed, row.label if row.folder is not None else None))
    return Published(file, paper.citation, tuple(lines)), arms, notes


def _baseline_row(file: TableFile, wanted: str | None) -> FileRow:
    for row in file.rows:
        if (wanted or file.baseline) in (row.key, row.label):
            return row
    choices = ", ".join(row.key for row in file.rows)
    raise ReportError(f"baseline {wanted or file.baseline!r} is no row of {file.name}: choose from {choices}")


def _arm(folder: Path) -> tuple[Arm, list[str]]:
    """The arm of the last configuration of a run folder, and notes on what is incomplete."""
    arms, notes = load_arms([folder])
    try:
        last = (read_run(folder) or {}).get("config")
    except StoreError as error:
        raise ReportError(str(error)) from error
    return next((arm for arm in arms if arm.config == last), arms[0]), notes


def _known(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A record with None for what is missing."""
    return {
        str(name): None if isinstance(cell, float) and math.isnan(cell) else cell
        for name, cell in row.items()
    }


def _printed(value: float | None, mark: str = "", *, signed: bool = False) -> str:
    """A number of the paper with the four digits that it prints, or a difference of two with three."""
    if value is None:
        return number(math.nan)
    return (f"{value:+#.3g}" if signed else f"{value:#.4g}") + mark
