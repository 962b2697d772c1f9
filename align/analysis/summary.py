"""Summary tables of results, as data and for the terminal."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from align.analysis.arms import cost_columns, optimised_columns, value_columns
from align.analysis.intervals import bootstrap
from align.output import tame
from align.store.columns import COSTS, is_text

if TYPE_CHECKING:
    import pandas
    from rich.console import Group

FOOTNOTE = "* the method optimised this itself, so it is no evidence for the method"


def summary(rows: pandas.DataFrame) -> pandas.DataFrame:
    """One row for each method, backbone and reward, in order of appearance.

    Columns: method, backbone, reward, n (finished rows), failed, optimised (joined by ';'); for each verdict
    and metric its mean under its name, and the 95% bootstrap interval by prompt under `<name>_low` and
    `<name>_high`; the mean of each cost. Failed rows and empty cells count for nothing.

    Args:
        rows: as `read_csv` gives them, or a frame of `Store.rows()`.
    """
    import pandas

    rows = _numeric(rows)
    names = ("method", "backbone", "reward")
    texts = [rows[name].fillna("") if name in rows else [""] * len(rows) for name in names]
    groups = list(zip(*texts, strict=True))
    made = []
    for group in dict.fromkeys(groups):
        part = rows[[other == group for other in groups]]
        made.append(dict(zip(names, group, strict=True)) | summarise(part))
    return pandas.DataFrame(made)


def _numeric(rows: pandas.DataFrame) -> pandas.DataFrame:
    """`rows` with whatever is no documented text as numbers, where it can be; None and truth values too."""
    rows = rows.copy()
    for name in rows.columns:
        if rows[name].dtype == object and not is_text(str(name)):
            with suppress(TypeError, ValueError):
                rows[name] = rows[name].astype("float64")
    return rows


def summarise(rows: pandas.DataFrame) -> dict[str, Any]:
    """The summary of rows that belong together; see `summary` for its entries."""
    failed = rows["status"].astype(str).str.startswith("failed")
    good = rows[~failed]
    names = value_columns(good)
    interval = bootstrap(good[names].to_numpy(dtype=float), list(good["prompt"]))
    result: dict[str, Any] = {
        "n": len(good),
        "failed": int(failed.sum()),
        "optimised": ";".join(sorted(optimised_columns(rows))),
    }
    for place, name in enumerate(names):
        result[name] = float(interval.mean[place])
        result[f"{name}_low"] = float(interval.low[place])
        result[f"{name}_high"] = float(interval.high[place])
    return result | {name: float(good[name].mean()) for name in cost_columns(good)}


def number(value: float, *, signed: bool = False) -> str:
    """A number for people: three decimals, fewer for large ones; a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    size = abs(value)
    if 0 < size < 0.001:
        return f"{value:+.0e}" if signed else f"{value:.0e}"
    decimals = (
        0 if value == round(value) else 3 if size < 10 else 2 if size < 100 else 1 if size < 1000 else 0
    )
    return f"{value:+.{decimals}f}" if signed and value else f"{value:.{decimals}f}"


def with_interval(mean: float, low: float, high: float, mark: str = "", *, signed: bool = False) -> str:
    """Mean, mark and interval, e.g. "0.312* [0.301, 0.322]"; no interval where there is none."""
    text = number(mean, signed=signed) + mark
    if low is None or math.isnan(low):
        return text
    return f"{text} [{number(low, signed=signed)}, {number(high, signed=signed)}]"


def summary_cells(row: Mapping[str, Any]) -> dict[str, str]:
    """The texts of a summary row by verdict or metric, optimised ones marked with a star."""
    optimised = set(str(row.get("optimised") or "").split(";"))
    return {
        name: with_interval(
            row[name], row[f"{name}_low"], row[f"{name}_high"], "*" if name in optimised else ""
        )
        for name in row
        if f"{name}_low" in row and not math.isnan(row[name])
    }


def grid(title: str, rows: Mapping[str, Mapping[str, str]]) -> Group:
    """A titled terminal table of texts by row and column name, turned so that it has the fewer columns."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    columns = list(dict.fromkeys(name for cells in rows.values() for name in cells))
    lines = {
        tame(label): {tame(name): _narrow(cells.get(name)) for name in columns}
        for label, cells in rows.items()
    }
    if len(columns) > len(rows):
        lines = {name: {label: cells[name] for label, cells in lines.items()} for name in map(tame, columns)}
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("", overflow="fold")
    for head in next(iter(lines.values()), {}):
        longest = max(len(word) for cells in lines.values() for word in cells[head].split())
        table.add_column(Text(_in_a_line(head)), justify="right", overflow="fold", min_width=longest)
    for label, cells in lines.items():
        table.add_row(Text(_in_a_line(label)), *map(Text, cells.values()))
    return Group(Text(tame(title), style="bold"), table)


def _in_a_line(text: str) -> str:
    return tame(text.replace("\n", "?"))


def _narrow(text: str | None) -> str:
    """A cell that breaks only between a mean and its interval."""
    return re.sub(r"(\[[^],]*), ", r"\1,", tame(text or "–"))


def render(summaries: pandas.DataFrame) -> Group:
    """Terminal tables of a summary: quality with intervals, then costs of a picture."""
    from rich.console import Group
    from rich.text import Text

    labels = row_labels(summaries)
    records = [dict(record) for record in summaries.to_dict("records")]
    named = dict(zip(labels, records, strict=True))
    quality = {
        label: {"n": str(row["n"])}
        | ({"failed": str(row["failed"])} if row["failed"] else {})
        | summary_cells({str(name): value for name, value in row.items()})
        for label, row in named.items()
    }
    cost = {
        label: {name: number(row[name]) for name in COSTS if name in row and not math.isnan(row[name])}
        for label, row in named.items()
    }
    parts: list[Any] = [grid("Quality (mean, 95% interval)", quality)]
    if any("*" in text for cells in quality.values() for text in cells.values()):
        parts.append(Text(FOOTNOTE, style="dim"))
    if any(cost.values()):
        parts.append(grid("Cost of a picture (mean)", cost))
    return Group(*parts)


def row_labels(summaries: pandas.DataFrame) -> list[str]:
    """A label for each row of a summary: `label`, else method, backbone and reward as needed."""
    if "label" in summaries:
        return [str(label) for label in summaries["label"]]
    keys: Sequence[tuple[str, ...]] = list(
        zip(*(map(str, summaries[name]) for name in ("method", "backbone", "reward")), strict=True)
    )
    if len({key[0] for key in keys}) == len(keys):
        return [key[0] or "?" for key in keys]
    return [" · ".join(part for part in key if part) or "?" for key in keys]
