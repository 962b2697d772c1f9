"""The project's name among packages, its version and commit; the metadata may be of an older name, or not there at all."""

from __future__ import annotations

import os
import platform
import subprocess
import tomllib
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

DISTRIBUTION = "align-t2i"
"""On the package index ``align`` is somebody else's: nothing here asks for it by that name."""
CHECKOUT = Path(__file__).resolve().parent.parent


def version() -> str | None:
    """The version that is installed, or else that of the checkout; None where neither is told."""
    try:
        return installed(DISTRIBUTION)
    except PackageNotFoundError:
        pass
    try:
        return str(
            tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
        )
    except (OSError, ValueError, LookupError, TypeError):
        return None


def version_line() -> str:
    """Name, version, commit of a checkout, and the versions of Python and torch; nothing is imported for it."""
    state = git_state()
    commit = f" ({state['commit'][:12]}{', changed' if state['changed'] else ''})" if state else ""
    try:
        torch = installed("torch")
    except PackageNotFoundError:
        torch = "not installed"
    return f"align {version() or 'of unknown version'}{commit}, Python {platform.python_version()}, torch {torch}"


def git_state(folder: Path = CHECKOUT) -> dict[str, Any] | None:
    """Commit of the checkout that the package runs from, and whether files differ; None outside one."""
    if not (folder / ".git").exists():
        return None
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, env=environment, check=True)
        return done.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return None
