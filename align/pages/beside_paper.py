"""A printed table and our runs of its rows as texts: methods down, as the paper has them, each metric of both across."""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING, Any

from align.analysis.published import NAMES, Published
from align.pages.document import Section
from align.pages.numbers import DASH, Cell, Estimate, line, number, records, with_interval

if TYPE_CHECKING:
    import pandas

NOT_RUN = "not run"
DOUBT = "† of the paper: see the notes"
TOY_LEAD = (
    "Made on the shapes world: whatever model a row names, ours is the small one that comes along, and its rewards are toys "
    "under their own names. The paper's absolute numbers are not comparable with ours: compare signs and order of the "
    "differences, and mind the checker (check_all), which no method follows while it samples."
)


def beside_paper(table: Published, frame: pandas.DataFrame) -> list[Section]:
    """The table itself with differences to the baseline, and agreement; of ``frame`` see ``Published.frame``."""
    rows = _known(frame)
    base = table.lines[0].row.label
    doubtful = {line.row.label for line in table.lines if line.paper and line.paper.doubt}
    values: dict[str, dict[str, Cell | str]] = {}
    gains: dict[str, dict[str, Cell | str]] = {}
    for row in rows:
        pictures = DASH if row["pictures"] is None else str(int(row["pictures"]))
        values.setdefault(row["label"], {})["pictures"] = pictures
    for metric, column in dict.fromkeys((row["metric"], row["column"]) for row in rows):
        own = [row for row in rows if (row["metric"], row["column"]) == (metric, column)]
        theirs, ours = f"{NAMES.get(metric, metric)}, paper", f"{column}, ours"
        means = line(_estimates(own, "ours", "ours_low", "ours_high"))
        differences = line(_estimates(own, "difference", "low", "high"), signed=True)
        for row in own:
            label, missing = row["label"], NOT_RUN if row["why_not"] else DASH
            mark = "†" if label in doubtful else ""
            gain = gains.setdefault(label, {})
            if metric:
                values[label][theirs] = _printed(row["paper"], 4, mark)
                gain[theirs] = _printed(row["paper_difference"], 3, mark, signed=True)
            values[label][ours] = means.get(label, missing)
            gain[ours] = differences.get(label, "baseline" if label == base else missing)
    head = f"{title(table)}, paper and ours (mean, 95% interval)"
    below = f"Difference to {base}, paper and ours (paired, 95% interval)"
    agreement = Section("Agreement of the differences", _agreement(table, rows), arms=False)
    return [Section(head, values, gains, below, arms=False), agreement]


def title(table: Published) -> str:
    """The title of the page."""
    return f"Table {table.file.number}: {table.file.title}" if table.printed else table.file.title


def skipped(table: Published) -> Section:
    """The rows without a run of ours, and why."""
    rows = {one.row.label: {"why": one.row.why_not} for one in table.lines if one.row.why_not}
    return Section("Rows that are not run", rows, arms=False)


def seconds(table: Published) -> dict[str, str]:
    """The paper's time of a picture by row, where it tells any and we have a run."""
    times = {one.row.label: one.paper.seconds for one in table.lines if one.paper and one.arm}
    return {label: number(time) for label, time in times.items() if time is not None}


def lead(table: Published, frame: pandas.DataFrame) -> list[str]:
    """What stands above a printed table: the source, and whether the baselines agree."""
    if not table.printed:
        return []
    return [table.citation, TOY_LEAD if table.toys else _baseline_line(table, frame)]


def notes(table: Published) -> list[str]:
    """Doubts about the paper's numbers, and in what our runs differ from the paper's."""
    doubts: dict[str, list[str]] = {}
    for one in table.lines:
        if one.paper and one.paper.doubt:
            doubts.setdefault(one.paper.doubt, []).append(one.row.label)
    known = [f"† {', '.join(labels)}: {doubt}" for doubt, labels in doubts.items()]
    return known + [f"{one.row.label}: {one.row.note}" for one in table.lines if one.row.note and one.arm]


def _baseline_line(table: Published, frame: pandas.DataFrame) -> str:
    """Whether the paper's means of the baseline lie within our intervals."""
    base = table.lines[0]
    off, checked = [], 0
    for row in _known(frame[frame["row"] == base.row.key]):
        if None in (row["paper"], row["ours"], row["ours_low"]):
            continue
        checked += 1
        if not row["ours_low"] <= row["paper"] <= row["ours_high"]:
            ours = with_interval(row["ours"], row["ours_low"], row["ours_high"])
            by = number(row["ours"] - row["paper"], signed=True)
            off.append(f"{NAMES[row['metric']]} {ours} against {_printed(row['paper'], 4)} ({by})")
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


def _agreement(table: Published, frame: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """For each metric in how many rows our difference has the paper's sign, and how many pairs of rows its order."""
    cells: dict[str, dict[str, str]] = {}
    for metric, column in table.columns.items():
        both = [row for row in frame if row["metric"] == metric and None not in (row["paper"], row["ours"])]
        moved = [row for row in both if None not in (row["difference"], row["paper_difference"])]
        if not moved:
            continue
        same = [row for row in moved if row["difference"] * row["paper_difference"] > 0]
        sure = [row for row in same if row["low"] is not None and row["low"] * row["high"] > 0]
        apart = [(one, two) for one, two in combinations(both, 2) if one["paper"] != two["paper"]]
        order = [(one["paper"] - two["paper"]) * (one["ours"] - two["ours"]) for one, two in apart]
        cells[f"{NAMES[metric]}, {column}" if table.toys else NAMES[metric]] = {
            "same sign": f"{len(same)} of {len(moved)} rows",
            "interval without zero": f"{len(sure)} of these",
            "same order": f"{sum(product > 0 for product in order)} of {len(order)} pairs of rows",
        }
    return cells


def _estimates(rows: list[dict[str, Any]], mean: str, low: str, high: str) -> dict[str, Estimate]:
    found = {}
    for row in rows:
        if row[mean] is not None:
            ends = [math.nan if row[end] is None else row[end] for end in (low, high)]
            found[row["label"]] = Estimate(row[mean], ends[0], ends[1], "*" if row["optimised"] else "")
    return found


def _known(frame: pandas.DataFrame) -> list[dict[str, Any]]:
    """The rows with None for what is missing."""
    return records(frame.astype(object).where(frame.notna(), None))


def _printed(value: float | None, digits: int, mark: str = "", *, signed: bool = False) -> str:
    """A number of the paper with the four digits that it prints, or a difference of two with three."""
    if value is None:
        return DASH
    places = digits - 1 - math.floor(math.log10(abs(value))) if value else digits - 1
    return number(value, max(0, places), signed=signed) + mark
