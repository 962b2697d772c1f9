"""The summary table of the gallery: a column an arm, a line a value, in groups."""

from __future__ import annotations

import math
from typing import Any

from align.analysis.arms import value_columns
from align.analysis.summary import number
from align.pages.report import Report
from align.store.columns import is_check


def summary_groups(made: Report) -> list[dict[str, Any]]:
    """The groups of the table: title, and lines of name and cells, one cell an arm (None: no value)."""
    values = list(dict.fromkeys(name for arm in made.arms for name in value_columns(arm.rows)))
    checks = [(name.removeprefix("check_"), name) for name in values if is_check(name)]
    metrics = [(name, name) for name in values if not is_check(name)]
    spent = list(dict.fromkeys(made.costs["cost"]))
    counts = [
        {"name": "finished", "cells": [_plain(str(len(arm.rows))) for arm in made.arms]},
        {"name": "failed", "cells": [_plain(str(arm.failed)) for arm in made.arms]},
    ]
    groups = [
        ("Share of pictures that the checker accepts", [_value_line(made, *names) for names in checks]),
        ("Metrics", [_value_line(made, *names) for names in metrics]),
        ("Cost of a picture", [_cost_line(made, name) for name in spent]),
        ("Pictures", counts),
    ]
    return [{"title": title, "lines": lines} for title, lines in groups if lines]


def _plain(text: str) -> dict[str, Any]:
    return {"mean": text, "interval": "", "gain": "", "gain_interval": "", "sign": 0, "optimised": False}


def _value_line(made: Report, shown: str, name: str) -> dict[str, Any]:
    means = {str(row["label"]): row for row in made.summary.to_dict("records")}
    gains = {str(row["arm"]): row for row in made.pairs.to_dict("records") if row["value"] == name}
    cells: list[dict[str, Any] | None] = []
    for arm in made.arms:
        row, gain = means[arm.label], gains.get(arm.label)
        if name not in row or math.isnan(row[name]):
            cells.append(None)
            continue
        cell = _plain(number(row[name]))
        cell |= {
            "interval": _range(row[f"{name}_low"], row[f"{name}_high"]),
            "optimised": name in arm.optimised,
        }
        if gain:
            low, high = gain["low"], gain["high"]
            cell |= {"gain": number(gain["difference"], signed=True)}
            cell |= {"gain_interval": _range(low, high, signed=True), "sign": 1 if low > 0 else -(high < 0)}
        cells.append(cell)
    return {"name": shown, "cells": cells}


def _cost_line(made: Report, name: str) -> dict[str, Any]:
    costs = {str(row["arm"]): row for row in made.costs.to_dict("records") if row["cost"] == name}
    cells: list[dict[str, Any] | None] = []
    for arm in made.arms:
        row = costs.get(arm.label)
        cells.append(_plain(number(row["mean"])) if row else None)
        if row and not math.isnan(row["ratio"]) and arm.label != made.baseline:
            cells[-1] = _plain(number(row["mean"])) | {"interval": f"{row['ratio']:.3g}×"}
    return {"name": name, "cells": cells}


def _range(low: float, high: float, *, signed: bool = False) -> str:
    return "" if math.isnan(low) else f"{number(low, signed=signed)} … {number(high, signed=signed)}"
