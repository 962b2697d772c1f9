"""What ``run.json`` records beside the identity: configuration, versions, hashes, git state, machine."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from align.config.convert import plain
from align.runner.prepare import Prepared
from align.version import git_state
from align.version import version as own_version

PACKAGES = ("torch", "diffusers", "transformers", "open_clip_torch", "numpy", "pillow", "safetensors")


def run_record(prepared: Prepared) -> dict[str, Any]:
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


def machine(threads: int | None) -> dict[str, Any]:
    """The machine, as far as it can tell why numbers differ in the last bits."""
    return {
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": threads,
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
    }
