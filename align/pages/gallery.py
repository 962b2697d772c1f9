"""A page to look at pictures of several runs side by side, in one file that needs nothing else.

Pictures are embedded, so the page opens from a disk or a web server alike, and loads nothing. Small pictures
are embedded as they are and shown enlarged without smoothing; large ones as JPEG of at most 512 pixels.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.analysis.arms import Arm, Pair, cost_columns, value_columns
from align.analysis.comparison import Comparison
from align.pages.numbers import decimals, number
from align.pages.page import render, save_page
from align.pages.report import INTERVALS
from align.pages.sections import FOOTNOTE, costs, quality, starred
from align.pictures import PictureError, saved_picture
from align.store.columns import CHECKS, is_check
from align.store.csvfile import visible
from align.store.pictures import png_bytes

Row = dict[str, Any]
LARGEST = 512
_SHOWN = {b"\x89PNG": "png", b"\xff\xd8": "jpeg", b"GIF8": "gif"}
"""Kinds of pictures that every browser shows, by their first bytes."""
_COST_NAMES = {"network_forward": "network", "decoder_forward": "decoder", "reward_forward": "reward"}


@dataclass(frozen=True)
class Pictures:
    """The rows of pictures of a comparison: what the gallery and the contact sheet show."""

    arms: list[Arm]
    """The baseline first."""
    pairs: list[Pair]
    """Prompt, seed and sample of each row, in the order of the baseline's rows, then of the others'."""
    places: list[dict[Pair, int]]
    """For each arm, the place of its row by pair."""
    total: int
    """Number of rows before the limit."""

    def row(self, arm: int, pair: Pair) -> dict[str, Any] | None:
        """The row of an arm for a pair; None where it has none."""
        place = self.places[arm].get(pair)
        return None if place is None else dict(self.arms[arm].rows.iloc[place])


def pictures_of(made: Comparison, limit: int) -> Pictures:
    """The rows of a comparison for showing, at most ``limit`` of them."""
    places = [arm.pairs() for arm in made.arms]
    pairs = list(dict.fromkeys(pair for known in places for pair in known))
    return Pictures(made.arms, pairs[:limit], places, len(pairs))


def write_gallery(made: Comparison, out: Path, *, limit: int = 400) -> Path:
    """Write the gallery of some runs, of at most ``limit`` rows, as HTML. Raises ReportError: it cannot be written."""
    shown = pictures_of(made, limit)
    columns = [value_columns(arm.rows) for arm in shown.arms]
    places = {name: decimals(_values(shown.arms, name)) for names in columns for name in names}
    sorts = [
        {"label": arm.label, "arm": place, "names": [name for name in names if name in columns[0]]}
        for place, (arm, names) in enumerate(list(zip(shown.arms, columns, strict=True))[1:])
    ]
    rows = [_row(shown, place, pair, places) for place, pair in enumerate(shown.pairs, 1)]
    text = render(
        "gallery.html.jinja",
        arms=shown.arms,
        baseline=made.baseline,
        sections=[section.for_page() for section in (quality(made), costs(made)) if section.rows],
        notes=[INTERVALS, *([FOOTNOTE] if starred(made) else []), *made.notes],
        rows=rows,
        total=shown.total,
        prompts=len({pair[0] for pair in shown.pairs}),
        sorts=sorts,
        has_checks=any("check_all" in names for names in columns),
    )
    save_page(out, text.encode())
    return out


def _values(arms: list[Arm], name: str) -> list[float]:
    return [float(value) for arm in arms if name in value_columns(arm.rows) for value in arm.rows[name]]


def _data_uri(path: str) -> str:
    """A picture as a data URI. Raises PictureError."""
    data, image = saved_picture(path)
    kind = next((kind for start, kind in _SHOWN.items() if data.startswith(start)), None)
    if max(image.size) > LARGEST:
        image.thumbnail((LARGEST, LARGEST))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=90)
        data, kind = buffer.getvalue(), "jpeg"
    elif kind is None:
        data, kind = png_bytes(image), "png"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _row(shown: Pictures, place: int, pair: Pair, places: Mapping[str, int]) -> dict[str, Any]:
    rows = [shown.row(arm, pair) for arm in range(len(shown.arms))]
    base = rows[0]
    verdicts = [number_in(row, "check_all") for row in rows]
    both = list(zip(rows, shown.arms, strict=True))
    prompt = visible(pair[0])
    data = {
        "prompt": prompt.lower(),
        "differs": len({verdict for verdict in verdicts if verdict is not None}) > 1,
        "baselineFails": verdicts[0] == 0,
        "deltas": [
            {name: _delta(row, base, name) for name in value_columns(arm.rows)} for row, arm in both[1:]
        ],
    }
    cells = [_cell(row, base, arm, pair, places) for row, arm in both]
    head = {"number": place, "prompt": prompt, "seed": pair[1], "sample": pair[2]}
    return head | {"cells": cells, "data": data}


def _cell(row: Row | None, base: Row | None, arm: Arm, pair: Pair, places: Mapping[str, int]) -> Row | None:
    if row is None and pair not in arm.failures:
        return None
    names = [] if row is None else value_columns(arm.rows)
    row = row or {"status": arm.failures[pair], "path": ""}
    checks: list[dict[str, Any]] = []
    metrics: list[dict[str, Any]] = []
    for name in names:
        value, delta = number_in(row, name), _delta(row, base, name)
        if not is_check(name):
            told = "" if delta is None or row is base else number(delta, places[name], signed=True)
            text = number(math.nan if value is None else value, places[name])
            sign = 0 if not delta else math.copysign(1, delta)
            metric = {"name": name, "text": text, "delta": told, "sign": sign}
            metrics.append(metric | {"optimised": name in arm.optimised})
        elif value is not None:
            check = {"name": name.removeprefix("check_"), "meaning": CHECKS.get(name, name)}
            checks.append(check | {"good": bool(value)})
    cost = [
        f"{number(spent)} {_COST_NAMES[name]}"
        for name in cost_columns(arm.rows)
        if name in _COST_NAMES and (spent := number_in(row, name))
    ]
    seconds = number_in(row, "seconds")
    verdict = number_in(row, "check_all")
    source, status = None, str(row["status"])
    try:
        source = _data_uri(row["path"]) if row["path"] else None
    except PictureError as error:
        status = f"{Path(row['path']).name}: {error}"
    return {
        "source": source,
        "status": visible(status),
        "verdict": None if verdict is None else bool(verdict),
        "checks": checks,
        "metrics": metrics,
        "drawn": "" if row is None else drawn_as(row),
        "cost": ", ".join(cost),
        "seconds": "" if seconds is None else f"{number(seconds)}\u00a0s",
    }


def drawn_as(row: Row) -> str:
    """The words that a picture was drawn with, where they are others than the user's; what is added to them alone."""
    prompt, drawn, negative = (
        text if isinstance(text := row.get(name), str) else ""
        for name in ("prompt", "drawn_prompt", "drawn_negative")
    )
    parts = []
    if drawn and drawn != prompt:
        parts.append(f"\u2026{drawn[len(prompt) :]}" if drawn.startswith(prompt) else drawn)
    if negative and negative != row.get("negative", ""):
        parts.append(f"not: {negative}")
    return visible("; ".join(parts))


def number_in(row: Row | None, name: str) -> float | None:
    """A row's finite number of a name; None where there is none."""
    value = None if row is None else row.get(name)
    return None if value is None or isinstance(value, str) or not math.isfinite(value) else float(value)


def _delta(row: Row | None, base: Row | None, name: str) -> float | None:
    mine, other = number_in(row, name), number_in(base, name)
    return None if mine is None or other is None else mine - other
