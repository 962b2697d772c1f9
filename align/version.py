"""The project's name among packages, and its version; the metadata may be of an older name, or not there at all."""

from __future__ import annotations

import platform
import tomllib
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path

DISTRIBUTION = "align-t2i"
"""On the package index ``align`` is somebody else's: nothing here asks for it by that name."""
_PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def version() -> str | None:
    """The version that is installed, or else that of the checkout; None where neither is told."""
    try:
        return installed(DISTRIBUTION)
    except PackageNotFoundError:
        pass
    try:
        return str(tomllib.loads(_PROJECT.read_text(encoding="utf-8"))["project"]["version"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def version_line() -> str:
    """Name, version, commit of a checkout, and the versions of Python and torch; nothing is imported for it."""
    from align.runner.record import git_state

    state = git_state()
    commit = f" ({state['commit'][:12]}{', changed' if state['changed'] else ''})" if state else ""
    try:
        torch = installed("torch")
    except PackageNotFoundError:
        torch = "not installed"
    return f"align {version() or 'of unknown version'}{commit}, Python {platform.python_version()}, torch {torch}"
