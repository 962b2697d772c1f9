"""What ``--version`` prints."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

NAME = "align"
"""Of the installed distribution."""


def version_line() -> str:
    """Name, version, commit of a checkout, and the versions of Python and torch; nothing is imported for it."""
    from align.runner.record import git_state

    state = git_state()
    commit = f" ({state['commit'][:12]}{', changed' if state['changed'] else ''})" if state else ""
    return f"align {_version(NAME)}{commit}, Python {platform.python_version()}, torch {_version('torch')}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
