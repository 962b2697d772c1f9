"""A page to look at pictures of several runs side by side, in one file that needs nothing else.

Pictures are embedded, so the page opens from a disk or a web server alike, and loads nothing. Small pictures
are embedded as they are and shown enlarged without smoothing; large ones as JPEG of at most 512 pixels.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align import writing
from align.analysis.arms import Arm, Pair, cost_columns, value_columns
from align.analysis.comparison import Comparison
from align.pages.numbers import decimals, number
from align.pages.page import render
from align.pages.report import INTERVALS
from align.pages.sections import FOOTNOTE, costs, quality
from align.pictures import PictureError, saved_picture
from align.store.columns import CHECKS, is_check
from align.store.csvfile import visible
from align.store.errors import ReportError

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST = 512
_SHOWN = {b"\x89PNG": "png", b"\xff\xd8": "jpeg", b"GIF8": "gif"}
"""Kinds of pictures that every browser shows, by their first bytes."""
_COST_NAMES = {"network_forward": "network", "decoder_forward": "decoder", "reward_forward": "reward"}


@dataclass(frozen=True)
class Pictures:
    """The rows of pictures of a comparison: what the gallery and the contact sheet show.

    Attributes:
        arms: the baseline first.
        pairs: prompt, seed and sample of each row, in the order of the baseline's rows, then of the others'.
        places: for each arm, the place of its row by pair.
        total: number of rows before the limit.
    """

    arms: list[Arm]
    pairs: list[Pair]
    places: list[dict[Pair, int]]
    total: int

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
    """Write the gallery of some runs.

    Args:
        made: their comparison.
        out: the HTML file to write; its folder is created when missing.
        limit: rows of pictures to show; the page says how many there are.

    Raises:
        ReportError: the file cannot be written.
    """
    shown = pictures_of(made, limit)
    values = {name: _values(shown.arms, name) for arm in shown.arms for name in value_columns(arm.rows)}
    places = {name: decimals(numbers) for name, numbers in values.items()}
    rows = [_row(shown, place, pair, places) for place, pair in enumerate(shown.pairs, 1)]
    starred = any(arm.optimised & {str(name) for name in made.summary.columns} for arm in made.arms)
    text = render(
        "gallery.html.jinja",
        arms=[_arm(arm) for arm in shown.arms],
        baseline=made.baseline,
        sections=[section.for_page() for section in (quality(made), costs(made)) if section.rows],
        notes=[INTERVALS, *([FOOTNOTE] if starred else []), *made.notes],
        rows=rows,
        total=shown.total,
        prompts=len({pair[0] for pair in shown.pairs}),
        sorts=_sorts(shown),
        has_checks=any("check_all" in value_columns(arm.rows) for arm in shown.arms),
        data=script_json([row["data"] for row in rows]),
    )
    out = Path(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        writing.write_text(out, text)
    except (OSError, ValueError) as error:
        raise ReportError(f"cannot write {out}: {getattr(error, 'strerror', None) or error}") from error
    return out


def _values(arms: list[Arm], name: str) -> list[float]:
    return [float(value) for arm in arms if name in value_columns(arm.rows) for value in arm.rows[name]]


def script_json(value: Any) -> str:
    """``value`` as JSON that is safe inside a script element: no tag, comment or entity can start in it."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for special in "<>&'":
        text = text.replace(special, f"\\u{ord(special):04x}")
    return text


def data_uri(path: str) -> str:
    """A picture as a data URI. Raises PictureError."""
    data, image = saved_picture(path)
    kind = next((kind for start, kind in _SHOWN.items() if data.startswith(start)), None)
    if max(image.size) > LARGEST:
        image.thumbnail((LARGEST, LARGEST))
        data, kind = _encoded(image, "JPEG", quality=90), "jpeg"
    elif kind is None:
        data, kind = _encoded(image, "PNG"), "png"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _encoded(image: Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _arm(arm: Arm) -> dict[str, Any]:
    details = " · ".join(part for part in (arm.backbone, arm.reward and f"guided by {arm.reward}") if part)
    return {"label": arm.label, "details": visible(details)}


def _row(shown: Pictures, place: int, pair: Pair, places: Mapping[str, int]) -> dict[str, Any]:
    rows = [shown.row(arm, pair) for arm in range(len(shown.arms))]
    base = rows[0]
    verdicts = [number_in(row, "check_all") for row in rows]
    known = {verdict for verdict in verdicts if verdict is not None}
    deltas = [
        {name: _delta(row, base, name) for name in value_columns(arm.rows)}
        for row, arm in zip(rows[1:], shown.arms[1:], strict=True)
    ]
    prompt = visible(pair[0])
    return {
        "number": place,
        "prompt": prompt,
        "seed": pair[1],
        "sample": pair[2],
        "cells": [_cell(row, base, arm, pair, places) for row, arm in zip(rows, shown.arms, strict=True)],
        "data": {
            "prompt": prompt.lower(),
            "differs": len(known) > 1,
            "baselineFails": verdicts[0] == 0,
            "deltas": deltas,
        },
    }


def _cell(
    row: dict[str, Any] | None,
    base: dict[str, Any] | None,
    arm: Arm,
    pair: Pair,
    places: Mapping[str, int],
) -> dict[str, Any] | None:
    if row is None:
        empty: dict[str, Any] = {
            "source": None,
            "verdict": None,
            "checks": [],
            "metrics": [],
            "cost": "",
            "seconds": "",
        }
        return empty | {"status": visible(arm.failures[pair])} if pair in arm.failures else None
    names = value_columns(arm.rows)
    metrics = []
    for name in names:
        value, delta = number_in(row, name), _delta(row, base, name)
        if is_check(name):
            continue
        metrics.append(
            {
                "name": name,
                "text": number(math.nan if value is None else value, places[name]),
                "delta": number(delta, places[name], signed=True)
                if delta is not None and row is not base
                else "",
                "sign": 0 if not delta else math.copysign(1, delta),
                "optimised": name in arm.optimised,
            }
        )
    checks = [
        {
            "name": name.removeprefix("check_"),
            "meaning": CHECKS.get(name, name),
            "good": bool(number_in(row, name)),
        }
        for name in names
        if is_check(name) and number_in(row, name) is not None
    ]
    cost = [
        f"{number(float(row[name]))} {_COST_NAMES[name]}"
        for name in cost_columns(arm.rows)
        if name in _COST_NAMES and number_in(row, name)
    ]
    seconds = number_in(row, "seconds")
    verdict = number_in(row, "check_all")
    source, status = None, str(row["status"])
    try:
        source = data_uri(row["path"]) if row["path"] else None
    except PictureError as error:
        status = f"{Path(row['path']).name}: {error}"
    return {
        "source": source,
        "status": visible(status),
        "verdict": None if verdict is None else bool(verdict),
        "checks": checks,
        "metrics": metrics,
        "cost": ", ".join(cost),
        "seconds": "" if seconds is None else f"{number(seconds)}\u00a0s",
    }


def number_in(row: dict[str, Any] | None, name: str) -> float | None:
    """A row's finite number of a name; None where there is none."""
    value = None if row is None else row.get(name)
    return None if value is None or isinstance(value, str) or not math.isfinite(value) else float(value)


def _delta(row: dict[str, Any] | None, base: dict[str, Any] | None, name: str) -> float | None:
    mine, other = number_in(row, name), number_in(base, name)
    return None if mine is None or other is None else mine - other


def _sorts(shown: Pictures) -> list[dict[str, Any]]:
    """Choices for sorting: for each arm beside the baseline the values that both have."""
    known = set(value_columns(shown.arms[0].rows))
    return [
        {
            "label": arm.label,
            "arm": place,
            "names": [name for name in value_columns(arm.rows) if name in known],
        }
        for place, arm in enumerate(shown.arms[1:])
    ]
