"""Means of results with intervals, a row a method."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from align.analysis.arms import cost_columns, optimised_columns, value_columns
from align.analysis.intervals import bootstrap
from align.store.columns import is_text

if TYPE_CHECKING:
    import pandas


def summary(rows: pandas.DataFrame) -> pandas.DataFrame:
    """One row for each method, backbone and reward, in order of appearance.

    Columns: method, backbone, reward, n (finished rows), failed, optimised (joined by ';'); for each verdict
    and metric its mean under its name, and the 95% bootstrap interval by prompt under ``<name>_low`` and
    ``<name>_high``; the mean of each cost. Failed rows and empty cells count for nothing. The rows are as
    ``read_csv`` gives them, or a frame of ``Store.rows()``.
    """
    import pandas

    rows = _numeric(rows)
    names = ["method", "backbone", "reward"]
    texts = [rows[name].fillna("") if name in rows else pandas.Series("", rows.index) for name in names]
    groups = rows.groupby(texts, sort=False)
    return pandas.DataFrame(
        [dict(zip(names, group, strict=True)) | summarise(part) for group, part in groups]
    )


def _numeric(rows: pandas.DataFrame) -> pandas.DataFrame:
    """``rows`` with whatever is no documented text as numbers, where it can be; None and truth values too."""
    rows = rows.copy()
    for name in rows.columns:
        if rows[name].dtype == object and not is_text(str(name)):
            with suppress(TypeError, ValueError):
                rows[name] = rows[name].astype("float64")
    return rows


def summarise(rows: pandas.DataFrame) -> dict[str, Any]:
    """The summary of rows that belong together; see ``summary`` for its entries."""
    failed = rows["status"].astype(str).str.startswith("failed")
    good = rows[~failed]
    names = value_columns(good)
    interval = bootstrap(good[names].to_numpy(dtype=float), list(good["prompt"]))
    optimised = ";".join(sorted(optimised_columns(rows)))
    result: dict[str, Any] = {"n": len(good), "failed": int(failed.sum()), "optimised": optimised}
    for name, mean, low, high in zip(names, *(ends.tolist() for ends in interval[:3]), strict=True):
        result |= {name: mean, f"{name}_low": low, f"{name}_high": high}
    return result | {name: float(good[name].mean()) for name in cost_columns(good)}
