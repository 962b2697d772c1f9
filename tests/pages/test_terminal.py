"""Tables in the terminal."""

import io

import pytest
from rich.console import Console

from align.pages.terminal import grid

METHODS = range(1, 6)
ROWS = {
    f"method_{number}": {"shapes_imagereward": f"{number}.123 [−0.{number}00, +1.234]", "pictures": "6"}
    | {f"another_{k}": "0.5" for k in range(4)}
    for number in METHODS
}


@pytest.mark.parametrize(("width", "tables"), [(45, 5), (60, 3), (80, 2), (200, 1)])
def test_a_narrow_window_shows_every_number_and_breaks_no_name(width, tables):
    console = Console(file=io.StringIO(), width=width)
    console.print(grid("Quality", ROWS))
    shown = console.file.getvalue()
    assert max(map(len, shown.splitlines())) <= width
    for number in METHODS:
        for part in (f"method_{number}", f"{number}.123", f"[−0.{number}00,+1.234]"):
            assert shown.count(part) == 1
    assert shown.count("shapes_imagereward") == shown.count("pictures") == tables
