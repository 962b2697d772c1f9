r"""Write and read CSV files so that every text survives and no spreadsheet runs one.

Texts, those of the header too: backslash, control characters, line and paragraph separators and lone surrogates
are written as escapes (``\\``, ``\n``, ``\r``, ``\t``, ``\x00``, ``\u2028``, ``\ud800``), so a row is always one physical line
of valid UTF-8. A text that then starts with ``=``, ``+``, ``-``, ``@`` (or their full-width forms), spaces and quotes
before it aside, would be a formula to a spreadsheet and gets a leading ``'``; so does one that starts with ``'``
itself, which makes the rule reversible: when reading, one leading ``'`` is dropped. A ``;`` before such a character
is an escape as well (``\x3b``), as spreadsheets of many countries split lines there. Numbers are written with the
fewest digits that read back to the same bits.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.reading import open_file
from align.store.columns import is_text

if TYPE_CHECKING:
    import pandas

_FORMULA = r"""[\s"'\u200b-\u200f\u2060]*[=+\-@＝＋－＠]"""
_GUARDED = re.compile(f"'|{_FORMULA}")
_SPLITS = re.compile(f";(?={_FORMULA})")
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\\\\\u2028\u2029\ufeff\ud800-\udfff]")
_ESCAPE = re.compile(r"\\(\\|n|r|t|x[0-9a-f]{2}|u[0-9a-f]{4})")
_SHORT = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_LONG = {"\\": "\\", "n": "\n", "r": "\r", "t": "\t"}
_INTEGER = re.compile(r"-?[0-9]+")


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def _unescape(match: re.Match[str]) -> str:
    code = match.group(1)
    return _LONG[code] if code in _LONG else chr(int(code[1:], 16))


def encode_text(text: str) -> str:
    """``text`` as the cell of a CSV file; ``decode_text`` undoes it exactly."""
    text = _SPLITS.sub(r"\\x3b", _UNSAFE.sub(_escape, text))
    return f"'{text}" if _GUARDED.match(text) else text


def decode_text(cell: str) -> str:
    """The text that ``encode_text`` turned into ``cell``."""
    if cell.startswith("'"):
        cell = cell[1:]
    return _ESCAPE.sub(_unescape, cell)


def visible(text: str) -> str:
    """``text`` for a reader: valid Unicode with control characters shown as escapes; not meant to be undone."""
    return _UNSAFE.sub(lambda match: match.group() if match.group() == "\\" else _escape(match), text)


def encode_cell(value: Any) -> str:
    """A plain value (see ``plain``) as a cell: None is empty, truth is 1 or 0, a list is joined by ';'."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return encode_text(";".join(str(item) for item in value))
    return encode_text(str(value))


def csv_lines(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Iterable[bytes]:
    """The lines of the file, header first, encoded; one row in memory at a time."""
    yield _line(map(encode_text, columns))
    for row in rows:
        yield _line(encode_cell(row.get(name)) for name in columns)


def _line(cells: Iterable[str]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue().encode("utf-8")


def frame_csv(table: pandas.DataFrame) -> str:
    """A whole table as CSV: header and texts encoded, numbers as pandas writes them."""
    import pandas

    encoded = {
        place: column
        if pandas.api.types.is_numeric_dtype(column)
        else column.astype(object).map(lambda cell: encode_text(cell) if isinstance(cell, str) else cell)
        for place, (_, column) in enumerate(table.items())
    }
    safe = pandas.DataFrame(encoded, index=table.index)
    header = [encode_text(str(name)) for name in table.columns]
    return str(safe.to_csv(index=False, lineterminator="\n", header=header))


def read_csv(path: Path | str) -> pandas.DataFrame:
    """Read a ``results.csv``; texts are what they were, an empty text is "" and not a missing value.

    Columns of text have dtype object. Every other column is int64 where all its cells are whole numbers and
    float64 where all are numbers or empty (empty is NaN); a column that is neither stays text.

    Raises OSError, and ValueError for no header, two columns of one name, or a row longer or shorter than the header.
    """
    import pandas

    # With pyarrow at hand pandas would keep text as that library's, which holds no lone surrogates, and prompts may.
    pandas.set_option("mode.string_storage", "python")
    csv.field_size_limit(max(csv.field_size_limit(), 1 << 27))
    with io.TextIOWrapper(open_file(path), encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        try:
            names = list(map(decode_text, next(reader, [])))
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"two columns are called {twice[0]!r}")
            rows = []
            for row in reader:
                if len(row) != len(names):
                    raise ValueError(
                        f"line {reader.line_num} has {len(row)} cells and the header {len(names)}"
                    )
                rows.append(row)
        except csv.Error as error:
            raise ValueError(f"line {reader.line_num}: {error}") from error
    if not names:
        raise ValueError("the file is empty")
    cells = zip(*rows, strict=True) if rows else [()] * len(names)
    series = {name: _column(name, column) for name, column in zip(names, cells, strict=True)}
    return pandas.DataFrame(series, columns=names)


def _column(name: str, cells: Sequence[str]) -> pandas.Series[Any]:
    import pandas

    if not is_text(name):
        if cells and all(map(_INTEGER.fullmatch, cells)) and max(map(len, cells)) < 1000:
            try:
                return pandas.Series([int(cell) for cell in cells], dtype="int64")
            except OverflowError:
                return pandas.Series([int(cell) for cell in cells], dtype=object)
        try:
            return pandas.Series([float(cell) if cell else float("nan") for cell in cells], dtype="float64")
        except ValueError:
            pass
    texts = {cell: decode_text(cell) for cell in set(cells)}  # most texts are there many times
    return pandas.Series([texts[cell] for cell in cells], dtype=object)
