"""Calling the command in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def align(
    *arguments: str, folder: Path, code: str | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m align`` (or some code) in a folder, with more variables in its environment."""
    command = [sys.executable, *(["-c", code] if code else ["-m", "align"]), *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | more
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1200)
