"""The templates of HTML pages: every text in them is escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from align import writing
from align.pages.numbers import DASH, Cell
from align.store.csvfile import visible
from align.store.errors import ReportError


def save_page(out: Path, data: bytes) -> None:
    """Write a page, and its folder where that is missing. Raises ReportError."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        writing.write_bytes(out, data)
    except (OSError, ValueError) as error:
        raise ReportError(f"cannot write {out}: {getattr(error, 'strerror', None) or error}") from error


def render(template: str, **values: Any) -> str:
    """A page; control characters, line ends aside, are shown as escapes, and an unknown name in it is an error."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals |= {"dash": DASH}
    environment.filters |= {"cell": lambda value: value if isinstance(value, Cell) else Cell(value)}
    text = environment.get_template(template).render(**values)
    return "\n".join(visible(line) for line in text.split("\n"))
