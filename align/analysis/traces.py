"""Traces: columns ``info_*`` whose cells are texts of numbers, one a step; how each goes, by method."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy

from align.analysis.arms import Arm

if TYPE_CHECKING:
    import pandas

_NUMBER = r"[-+]?(\d+\.?\d*([eE][-+]?\d+)?|\.\d+|inf|nan)"
_TRACE = re.compile(rf"{_NUMBER}( {_NUMBER})+")


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
            # Pictures by steps, NaN behind the end of a shorter one and for what is not finite.
            steps = [[float(word) for word in cell.split()] for cell in arm.rows[name] if cell]
            table = pandas.DataFrame(steps).replace([numpy.inf, -numpy.inf], numpy.nan).to_numpy()
            if name == "info_values":  # of candidates, of which the best so far counts
                table = numpy.fmax.accumulate(table, axis=1)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # a step without any finite value: NaN
                figures = numpy.nanmean(table, axis=0), *numpy.nanpercentile(table, [10, 90], axis=0)
            number = (~numpy.isnan(table)).sum(axis=0)
            head = {"arm": arm.label, "trace": name.removeprefix("info_")}
            for step, (count, mean, low, high) in enumerate(zip(number, *figures, strict=True), 1):
                rows.append(head | {"step": step, "pictures": count, "mean": mean, "low": low, "high": high})
    return pandas.DataFrame(rows, columns=["arm", "trace", "step", "pictures", "mean", "low", "high"])
