"""Traces: columns ``info_*`` whose cells are texts of numbers, one a step; how each goes, by method."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from align.analysis.arms import Arm
from align.analysis.intervals import Floats
from align.pages.plots import drawing, plain_label

if TYPE_CHECKING:
    import pandas

_NUMBER = r"[-+]?(\d+\.?\d*([eE][-+]?\d+)?|\.\d+|inf|nan)"
_TRACE = re.compile(rf"{_NUMBER}( {_NUMBER})+")
MEANINGS = {
    "ess": "effective sample size, particles",
    "resampled": "resampled, share of pictures",
    "temperature": "temperature",
    "unvalued": "particles without a candidate of finite value",
}
"""What plots call the traces that are known."""


def trace_columns(rows: pandas.DataFrame) -> list[str]:
    """Columns of traces, by their cells: two numbers or more in each that is not empty."""
    found = []
    for name in map(str, rows.columns):
        cells = [cell for cell in rows[name] if cell] if rows[name].dtype == object else []
        told = cells and all(isinstance(cell, str) and _TRACE.fullmatch(cell) for cell in cells)
        found += [name] if name.startswith("info_") and told else []
    return found


def traces(arms: Sequence[Arm]) -> pandas.DataFrame:
    """How each trace of each arm goes: arm, trace, step (from 1), pictures, mean, low, high.

    Low and high are the 10th and 90th percentile over pictures. What is not finite counts for nothing.
    """
    import pandas

    rows: list[dict[str, Any]] = []
    for arm in arms:
        for name in trace_columns(arm.rows):
            table = _table([cell for cell in arm.rows[name] if cell])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # a step without any finite value: NaN
                figures = numpy.nanmean(table, axis=0), *numpy.nanpercentile(table, [10, 90], axis=0)
            number = (~numpy.isnan(table)).sum(axis=0)
            head = {"arm": arm.label, "trace": name.removeprefix("info_")}
            for step, (count, mean, low, high) in enumerate(zip(number, *figures, strict=True), 1):
                rows.append(head | {"step": step, "pictures": count, "mean": mean, "low": low, "high": high})
    return pandas.DataFrame(rows, columns=["arm", "trace", "step", "pictures", "mean", "low", "high"])


def _table(cells: Sequence[str]) -> Floats:
    """Pictures by steps, NaN behind the end of a shorter one and for what is not finite."""
    lines = [[float(word) for word in cell.split()] for cell in cells]
    table = numpy.full((len(lines), max(map(len, lines))), numpy.nan)
    for row, line in zip(table, lines, strict=True):
        row[: len(line)] = line
    return numpy.where(numpy.isfinite(table), table, numpy.nan)


def plot_traces(found: pandas.DataFrame, out: Path) -> None:
    """Draw a panel a trace, a line an arm with the range of most pictures, as SVG; equal figures give equal bytes.

    Raises:
        OSError: the file cannot be written.
    """
    from matplotlib.ticker import MaxNLocator

    names, arms = list(dict.fromkeys(found["trace"])), list(dict.fromkeys(found["arm"]))
    with drawing(out, len(names)) as panels:
        for panel, name in zip(panels, names, strict=True):
            for place, arm in enumerate(arms):
                line = found[(found["trace"] == name) & (found["arm"] == arm)]
                line = line[line["mean"].notna()]  # some select at a few steps only
                if not len(line):
                    continue
                colour = f"C{place % 10}"
                label = plain_label(arm)
                panel.plot(line["step"], line["mean"], color=colour, label=label, marker=".", linewidth=1.5)
                if name != "resampled":  # of 0 and 1 the mean says all
                    low, high = line["low"], line["high"]
                    panel.fill_between(line["step"], low, high, color=colour, alpha=0.15, linewidth=0)
            panel.set_ylabel(MEANINGS.get(name, plain_label(name)))
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            panel.legend(frameon=False, fontsize="small")
        panels[-1].set_xlabel("step")
