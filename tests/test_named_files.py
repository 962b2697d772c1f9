"""Files that pages, comments and docstrings name are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("align/**/*.md"),
    ROOT / "Makefile",
    ROOT / "pyproject.toml",
]
PLACES = [*PAGES, *ROOT.glob("conf/**/*.yaml"), *ROOT.glob("align/**/*.py"), *ROOT.glob("scripts/**/*.py")]
NAMED = re.compile(r"(?<![\w./-])(?:align|conf|docs|scripts|tests)/[\w./-]*\w")
ELSEWHERE = {"align/conf", "conf/method/mine.yaml"}
"""In a wheel, and in a user's folder."""
MODULES = re.compile(r"``(align(?:\.\w+)+)``")


def exists(name):
    return (ROOT / name).exists() or (ROOT / f"{name}.py").exists()


def module_exists(name):
    """A module, or what stands in one, or in a class of one."""
    parts = name.split(".")
    return any(exists("/".join(parts[:end])) for end in range(max(2, len(parts) - 2), len(parts) + 1))


@pytest.mark.parametrize("place", PLACES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_named_is_there(place):
    if place.name == "CHANGELOG.md":
        pytest.skip("tells what was")
    text = place.read_text(encoding="utf-8")
    named = {name for name in NAMED.findall(text) if "NAME" not in name} - ELSEWHERE
    assert not sorted(name for name in named if not exists(name))
    assert not sorted(name for name in MODULES.findall(text) if not module_exists(name))
