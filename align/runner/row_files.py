"""Rows of files that users bring: tables, JSON and lists of texts.  Each is read whole and right, or refused in one line.

    .csv .tsv .tab          a table: a header, and as many cells in each row as it has
    .json                   a list of objects
    .jsonl .ndjson          an object a line
    .parquet .pq            a table, read with pyarrow
    .txt .text .list .lst   a text a line; so does a name without an ending

Endings count in any case.  Text is UTF-8; a byte order mark in front is dropped.  Lines end in LF, CRLF or CR and in
nothing else, so U+2028 and its like are parts of a text.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from align.config.convert import shown
from align.config.errors import ConfigError, suggestion
from align.reading import open_file, read_bytes

TABLES = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
"""Of tables in text, by ending: the separator, unless the header has only another one."""
LINES = ("", ".txt", ".text", ".list", ".lst")
"""A text a line."""
ENDINGS = (*TABLES, ".json", ".jsonl", ".ndjson", ".parquet", ".pq", *LINES[1:])
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_CELL = 1 << 27
"""Longest cell of a table, in characters."""

Quoting = Literal[0, 3]
"""``csv.QUOTE_MINIMAL`` or ``csv.QUOTE_NONE``."""
Choice = Callable[[list[str]], Sequence[str]]
"""Told the names of a table's columns before its rows are read: those to read."""


def read_rows(
    path: Path, name: str | None = None, choose: Choice | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a table or of JSON objects, in order: where each stands ("mine.csv, line 3"), and its cells.

    ``name`` is what messages call the file, and ``choose`` says which columns of a table to read.  Cells of a text
    table
    are texts, those of other files whatever JSON or Parquet holds.  Raises ConfigError; before the first row where the
    file as a whole is wrong.
    """
    name = name or str(path)
    for place, entry in read_entries(path, name, choose):
        if not isinstance(entry, dict):
            raise ConfigError(f'{place} is no row: give an object such as {{"column": "value"}}, or a table')
        yield place, entry


def read_entries(
    path: Path, name: str | None = None, choose: Choice | None = None
) -> Iterator[tuple[str, Any]]:
    """As ``read_rows``, but an entry may be any JSON value, and of a file of lines is a text."""
    name = name or str(path)
    ending = path.suffix.lower()
    if ending not in (*LINES, *ENDINGS):
        raise ConfigError(
            f"{name} ends in {path.suffix}, which is not read: save it as one of {' '.join(ENDINGS)}"
        )
    if ending in (".parquet", ".pq"):
        with _reading(path, name):
            open_file(path).close()
        return _parquet(path, name, choose)
    text = _text(path, name)
    if not text.strip():
        raise ConfigError(f"{name} is empty: give a file that is not")
    if ending in TABLES:
        return _table(text, TABLES[ending], name, choose)
    if ending == ".json":
        return _list(text, name)
    if ending in (".jsonl", ".ndjson"):
        return ((place, _json(line, place)) for place, line in _lines(text, name))
    return _lines(text, name)


@contextmanager
def _reading(path: Path, name: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        near = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = suggestion(path.name, near)
        mend = hint.partition("?")[0] + "?" if "did you mean" in hint else "; give the path of a file"
        raise ConfigError(f"{name}: there is no such file{mend}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{name} cannot be read: {reason}; give another file") from None


def _text(path: Path, name: str) -> str:
    with _reading(path, name):
        data = read_bytes(path)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError(f"{name} is UTF-16: save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + len(re.findall(rb"\r\n|\r|\n", data[: error.start]))
        raise ConfigError(
            f"{name}, line {line} is not UTF-8 (byte {error.start}): save it as UTF-8"
        ) from None
    for pattern, mend in (
        (r"\0", "is a NUL character: save the file as UTF-8"),
        # Inside a line it is a part of the text.
        (r"(?:\A|(?<=[\r\n]))\ufeff", "is a byte order mark, as of two files put together: take it out"),
    ):
        if found := re.search(pattern, text):
            line = 1 + len(re.findall(r"\r\n|\r|\n", text[: found.start()]))
            raise ConfigError(f"{name}, line {line}: there {mend}")
    return text


def _lines(text: str, name: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        if line.strip():
            yield f"{name}, line {number}", line


def _table(text: str, usual: str, name: str, choose: Choice | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows below a line of column names; cells may be quoted, and then hold separators and newlines."""
    separator, text, skipped = _separator(text, usual, name)
    (_, header), *below = _cells(text, separator, name, skipped)
    if not below:
        raise ConfigError(f"{name} has a header and no rows: add some below {shown(', '.join(header))}")
    # Spreadsheets leave columns without name and content, and pandas its index without a name.
    filled = [any(row[k].strip() for _, row in below) for k in range(len(header))]
    names = [column.strip() or f"column_{k}" for k, column in enumerate(header, 1)]
    kept = [k for k, column in enumerate(header) if column.strip() or filled[k]]
    _check_names([names[k] for k in kept], name)
    chosen = None if choose is None else choose([names[k] for k in kept])
    kept = [k for k in kept if chosen is None or names[k] in chosen]
    return ((place, {names[k]: row[k] for k in kept}) for place, row in below)


def _cells(text: str, separator: str, name: str, skipped: int) -> list[tuple[str, list[str]]]:
    """The rows of a table, the header first, with the line on which each starts; those without content are left out."""
    try:
        return _parsed(text, separator, name, skipped, csv.QUOTE_MINIMAL)
    except ConfigError:
        if separator != "\t":
            raise
        try:  # tables with tabs are also written without any quoting
            return _parsed(text, separator, name, skipped, csv.QUOTE_NONE)
        except ConfigError:
            pass
        raise


def _parsed(
    text: str, separator: str, name: str, skipped: int, quoting: Quoting
) -> list[tuple[str, list[str]]]:
    rows: list[tuple[str, list[str]]] = []
    for line, row in _rows(text, separator, quoting):
        place = f"{name}, line {line + skipped}"
        if isinstance(row, csv.Error):
            raise ConfigError(
                f'{place} is no row of a table ({row}): quote a cell whole, and write " in it twice'
            )
        if not any(cell.strip() for cell in row):
            continue
        if rows and len(row) != len(rows[0][1]):
            what, wanted = _SEPARATORS[separator], len(rows[0][1])
            if len(row) < wanted:
                raise ConfigError(
                    f"{place} has {len(row)} of the header's {wanted} cells: give it {what} for empty ones too"
                )
            raise ConfigError(
                f"{place} has {len(row)} cells and the header {wanted}: "
                f'quote the cell that has {what} in it, as in "a cat{separator} a dog"'
            )
        if quoting != csv.QUOTE_NONE and (odd := [cell for cell in row if re.match(r'[ \t]+"', cell)]):
            raise ConfigError(f"{place} has a space before a quote ({shown(odd[0].strip())}): take it out")
        rows.append((place, row))
    if not rows:
        raise ConfigError(f"{name} is empty: give a file that is not")
    return rows


def _rows(text: str, separator: str, quoting: Quoting) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """The rows of a table with the line on which each starts, until one cannot be parsed."""
    csv.field_size_limit(max(csv.field_size_limit(), _CELL))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, quoting=quoting, strict=True)
    line = 1
    try:
        for row in reader:
            yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        yield line, error


def _check_names(names: Sequence[str], name: str) -> None:
    twice = [column for column, number in Counter(names).items() if number > 1]
    if twice:
        raise ConfigError(f"{name} has the column {twice[0]!r} twice: rename one")


def _separator(text: str, usual: str, name: str) -> tuple[str, str, int]:
    """The separator of a table, the text without a line that only names it (``sep=;``), and the lines left out."""
    if found := re.match(r'"?sep=(.)"?(?:\r\n|\r|\n)', text):
        if found.group(1) not in _SEPARATORS:
            raise ConfigError(
                f"{name}, line 1: {found.group(1)!r} is no separator that is read: use commas or tabs"
            )
        return found.group(1), text[found.end() :], 1
    first = {one: next(_rows(text, one, csv.QUOTE_MINIMAL), (1, [""]))[1] for one in (usual, *_SEPARATORS)}
    apart = [one for one, header in first.items() if isinstance(header, list) and len(header) > 1]
    if usual in apart or not apart:
        return usual, text, 0
    if len(apart) > 1:
        what = " and ".join(_SEPARATORS[one] for one in apart)
        raise ConfigError(
            f"{name}, line 1 has {what}, and not one that parts its columns: use {_SEPARATORS[usual]}"
        )
    return apart[0], text, 0


def _list(text: str, name: str) -> Iterator[tuple[str, Any]]:
    entries = _json(text, name)
    if not isinstance(entries, list):
        raise ConfigError(f"{name} holds no list: give a JSON list, or a .jsonl file with an object a line")
    return ((f"{name}, entry {number}", entry) for number, entry in enumerate(entries, 1))


def _json(text: str, place: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{place} is not JSON ({error}): mend it") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = next(key for key, number in Counter(key for key, _ in pairs).items() if number > 1)
        raise ValueError(f"an object has the key {twice!r} twice, at {shown(str(pairs[-1][1]))}")
    return made


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def _parquet(path: Path, name: str, choose: Choice | None) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise ConfigError(f"{name} is read with pyarrow, which is not here: pip install pyarrow") from None
    try:
        with parquet.ParquetFile(path) as file:
            names = list(file.schema_arrow.names)
            _check_names(names, name)
            wanted = None if choose is None else list(choose(names))
            rows: list[dict[str, Any]] = file.read(columns=wanted).to_pylist()
    except (ArrowException, OSError, ValueError) as error:
        raise ConfigError(f"{name} cannot be read: {str(error).splitlines()[0]}; give another file") from None
    if not rows:
        raise ConfigError(f"{name} has no rows: add some")
    return ((f"{name}, row {number}", row) for number, row in enumerate(rows, 1))


def cell_text(value: Any) -> str:
    """A cell as a text: what is missing is empty, truth and numbers as in JSON, lists and objects as compact JSON.

    Raises ValueError for bytes.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_other)


def _other(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        raise ValueError("it holds bytes")
    return str(value)
