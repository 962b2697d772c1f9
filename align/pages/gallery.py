"""A page to look at pictures of several runs side by side, in one file that needs nothing else.

Pictures are embedded, so the page opens from a disk or a web server alike, and loads nothing. Small pictures
are embedded as they are and shown enlarged without smoothing; large ones as JPEG of at most 512 pixels.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align import writing
from align.analysis.arms import Arm, Pair, cost_columns, value_columns
from align.analysis.summary import number
from align.pages.gallery_summary import summary_groups
from align.pages.page import environment
from align.pages.report import Report, report
from align.pictures import PictureError
from align.store.columns import CHECKS, is_check
from align.store.csvfile import readable
from align.store.errors import ReportError
from align.store.pictures import saved_picture

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST = 512
_SHOWN = {b"\x89PNG": "png", b"\xff\xd8": "jpeg", b"GIF8": "gif"}
"""Kinds of pictures that every browser shows, by their first bytes."""
_COST_NAMES = {"network_forward": "network", "decoder_forward": "decoder", "reward_forward": "reward"}


@dataclass(frozen=True)
class Pictures:
    """The rows of pictures of a report: what the gallery and the contact sheet show.

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


def pictures_of(made: Report, limit: int) -> Pictures:
    """Arrange the rows of a report for showing, at most `limit` of them."""
    places = [arm.pairs() for arm in made.arms]
    pairs = list(dict.fromkeys(pair for known in places for pair in known))
    return Pictures(made.arms, pairs[:limit], places, len(pairs))


def write_gallery(
    folders: Sequence[Path], out: Path, baseline: str | None = None, *, limit: int = 400
) -> Path:
    """Write the gallery of some runs.

    Args:
        folders: run folders, or folders of run folders.
        out: the HTML file to write; its folder is created when missing.
        baseline: as for `report`.
        limit: rows of pictures to show; the page says how many there are.

    Raises:
        ReportError: as for `report`, or the file cannot be written.
    """
    made = report(folders, baseline)
    shown = pictures_of(made, limit)
    rows = [_row(shown, number_, pair) for number_, pair in enumerate(shown.pairs)]
    text = (
        environment()
        .get_template("gallery.html.jinja")
        .render(
            arms=[_arm(arm) for arm in shown.arms],
            baseline=made.baseline,
            summary=summary_groups(made),
            notes=[readable(note) for note in made.notes],
            rows=rows,
            total=shown.total,
            prompts=len({pair[0] for pair in shown.pairs}),
            sorts=_sorts(shown),
            has_checks=any("check_all" in value_columns(arm.rows) for arm in shown.arms),
            data=script_json([row["data"] for row in rows]),
        )
    )
    out = Path(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        writing.write_text(out, text)
    except (OSError, ValueError) as error:
        raise ReportError(f"cannot write {out}: {getattr(error, 'strerror', None) or error}") from error
    return out


def main(argv: Sequence[str]) -> int:
    """The command ``gallery``. Raises ConfigError."""
    from align.commands.parser import OneLineParser, number_of
    from align.config.errors import ConfigError

    parser = OneLineParser(
        prog="align gallery", description="Write a self-contained page of pictures side by side."
    )
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="FOLDER", help="run folder, or a folder of them"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the HTML file to write")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="also write a contact sheet, a PNG file")
    parser.add_argument("--baseline", metavar="NAME", help="method, label or folder to compare with")
    parser.add_argument(
        "--limit", type=number_of, default=400, metavar="N", help="rows of pictures (default: 400)"
    )
    options = parser.parse_args(argv)
    if options.sheet is not None and options.sheet.absolute() == options.out.absolute():
        raise ConfigError("gallery: --out and --sheet name one file: give two")
    from align.pages.contact_sheet import write_contact_sheet

    try:
        print(write_gallery(options.folders, options.out, options.baseline, limit=options.limit))
        if options.sheet is not None:
            write_contact_sheet(options.folders, options.sheet, options.baseline)
            print(options.sheet)
    except ReportError as error:
        raise ConfigError(f"gallery: {error}") from error
    return 0


def script_json(value: Any) -> str:
    """`value` as JSON that is safe inside a script element: no tag, comment or entity can start in it."""
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
    return {"label": arm.label, "details": readable(details)}


def _row(shown: Pictures, place: int, pair: Pair) -> dict[str, Any]:
    rows = [shown.row(arm, pair) for arm in range(len(shown.arms))]
    base = rows[0]
    verdicts = [number_in(row, "check_all") for row in rows]
    known = {verdict for verdict in verdicts if verdict is not None}
    deltas = [
        {name: _delta(row, base, name) for name in value_columns(arm.rows)}
        for row, arm in zip(rows[1:], shown.arms[1:], strict=True)
    ]
    prompt = readable(pair[0])
    return {
        "number": place + 1,
        "prompt": prompt,
        "seed": pair[1],
        "sample": pair[2],
        "cells": [_cell(row, base, arm, pair) for row, arm in zip(rows, shown.arms, strict=True)],
        "data": {
            "prompt": prompt.lower(),
            "differs": len(known) > 1,
            "baselineFails": verdicts[0] == 0,
            "deltas": deltas,
        },
    }


def _cell(
    row: dict[str, Any] | None, base: dict[str, Any] | None, arm: Arm, pair: Pair
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
        return empty | {"status": readable(arm.failures[pair])} if pair in arm.failures else None
    names = value_columns(arm.rows)
    metrics = []
    for name in names:
        value, delta = number_in(row, name), _delta(row, base, name)
        if is_check(name):
            continue
        metrics.append(
            {
                "name": name,
                "text": number(math.nan if value is None else value),
                "delta": number(delta, signed=True) if delta is not None and row is not base else "",
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
        "status": readable(status),
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
