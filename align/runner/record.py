"""What ``run.json`` records beside the identity: configuration, versions, hashes, git state, machine."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from align.config.convert import plain
from align.runner.prepare import Prepared
from align.version import version as own_version

PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "open_clip_torch",
    "numpy",
    "pillow",
    "safetensors",
)
CHECKOUT = Path(__file__).resolve().parent.parent.parent


def record(prepared: Prepared) -> dict[str, Any]:
    """The record of a run that starts."""
    return {
        "config": plain(prepared.config),
        "prompts": prepared.prompts.record(),
        **prepared.kept,
        "versions": versions(),
        "git": git_state(),
        "machine": machine(prepared.config.run.threads),
    }


def versions() -> dict[str, str | None]:
    """Versions of Python and of what decides the numbers; None for what is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version(), "align": own_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


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


def machine(threads: int | None) -> dict[str, Any]:
    """The machine, as far as it can tell why numbers differ in the last bits."""
    return {
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": threads,
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
    }
