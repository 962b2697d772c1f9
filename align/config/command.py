"""What a command line asks to be composed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PRIMARY = "config"
"""The primary config of a command that names none."""


@dataclass(frozen=True)
class Command:
    """Configurations by the words of a command line, ``key=value`` as Hydra reads them.

    ``multirun``: every combination of comma-separated values.  ``told`` are further words before ``overrides``,
    from a file
    (a table's rows), which may say less.
    """

    overrides: tuple[str, ...]
    multirun: bool = False
    config_dir: Path | None = None
    config_name: str = PRIMARY
    told: tuple[str, ...] = ()
