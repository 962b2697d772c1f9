"""A contact sheet: rows of pictures by prompt, a column a method, framed by the checker's verdict. One PNG.

The same rows give the same bytes: the font comes with matplotlib, nothing depends on time or machine.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from align.analysis.comparison import Comparison
from align.pages.gallery import number_in, pictures_of
from align.pages.page import save_page
from align.pictures import PictureError, saved_picture
from align.store.csvfile import visible
from align.store.pictures import png_bytes

Font = ImageFont.FreeTypeFont
ROOM = 128
FRAME = 4
CELL = ROOM + 2 * FRAME + 4
GAP = 14
MARGIN = 28
CAPTION = 232
HEADER = 44
PAGE, INK, SOFT, LINE = "#fbfbf9", "#1b1c1e", "#6b6e74", "#dcdcd7"
GOOD, BAD = "#1f9254", "#cf3a31"


def write_contact_sheet(made: Comparison, out: Path, *, limit: int = 24) -> Path:
    """Write the contact sheet of some runs, of at most ``limit`` rows, as PNG. Raises ReportError: it cannot be written."""
    shown = pictures_of(made, limit)
    columns = len(shown.arms)
    width = 2 * MARGIN + CAPTION + columns * (CELL + GAP)
    height = 2 * MARGIN + HEADER + len(shown.pairs) * (CELL + GAP) + 16
    sheet = Image.new("RGB", (width, height), PAGE)
    draw = ImageDraw.Draw(sheet)
    bold, text, small = _font(15, bold=True), _font(14), _font(12)
    for column, arm in enumerate(shown.arms):
        label = _wrapped(draw, visible(arm.label), bold, CELL, lines=2)
        left = MARGIN + CAPTION + column * (CELL + GAP)
        draw.multiline_text((left, MARGIN + HEADER - 12), label, INK, bold, anchor="ld", spacing=2)
    for place, pair in enumerate(shown.pairs):
        top = MARGIN + HEADER + place * (CELL + GAP)
        caption = _wrapped(draw, visible(pair[0]) or "(empty prompt)", text, CAPTION - 24, lines=6)
        draw.multiline_text((MARGIN, top), caption, INK, text, spacing=4)
        draw.text((MARGIN, top + CELL), f"seed {pair[1]}, sample {pair[2]}", SOFT, small, anchor="ld")
        for column in range(columns):
            left = MARGIN + CAPTION + column * (CELL + GAP)
            _cell(sheet, left, top, shown.row(column, pair), small)
    legend = "Frame: green where the checker accepts the picture, red where it does not."
    if shown.total > len(shown.pairs):
        legend += f" The first {len(shown.pairs)} of {shown.total} rows."
    draw.text((MARGIN, height - MARGIN + 8), legend, SOFT, small, anchor="ld")
    save_page(out, png_bytes(sheet))
    return out


def _cell(sheet: Image.Image, left: int, top: int, row: dict[str, Any] | None, font: Font) -> None:
    draw = ImageDraw.Draw(sheet)
    verdict = number_in(row, "check_all")
    colour = LINE if verdict is None else GOOD if verdict else BAD
    draw.rounded_rectangle(
        (left, top, left + CELL - 1, top + CELL - 1), 5, fill=PAGE, outline=colour, width=FRAME
    )
    path, gap, picture = "" if row is None else str(row["path"] or ""), "no picture", None
    try:
        picture = _picture(path) if path else None
    except PictureError as error:
        gap = _wrapped(draw, visible(f"{Path(path).name}: {error}"), font, ROOM, lines=7)
    if picture is None:
        middle = left + CELL // 2, top + CELL // 2
        draw.multiline_text(middle, gap, SOFT, font, anchor="mm", align="center")
        return
    sheet.paste(picture, (left + (CELL - picture.width) // 2, top + (CELL - picture.height) // 2))


def _picture(path: str) -> Image.Image:
    """A picture scaled to fit a cell: small ones by repeating pixels, large ones smoothly. Raises PictureError."""
    _, picture = saved_picture(path)
    scale = ROOM / max(picture.size)
    scale = math.floor(scale) if scale > 1 else scale
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), how)


def _font(size: int, *, bold: bool = False) -> Font:
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def _wrapped(draw: ImageDraw.ImageDraw, text: str, font: Font, width: int, *, lines: int) -> str:
    """``text`` broken into at most ``lines`` lines of ``width`` pixels, within words only where one is too long."""
    made = [""]
    for word in text[:2000].split():
        while draw.textlength(word, font) > width:
            sizes = range(1, len(word))
            fits = max(
                1, bisect_right(sizes, float(width), key=lambda size: draw.textlength(word[:size], font))
            )
            made += [word[:fits], ""]
            word = word[fits:]
        joined = f"{made[-1]} {word}".strip()
        made[-1:] = [made[-1], word] if draw.textlength(joined, font) > width else [joined]
    made = list(filter(None, made))
    if len(made) > lines:
        made = [*made[: lines - 1], made[lines - 1].rstrip(" .") + " …"]
    return "\n".join(made)
