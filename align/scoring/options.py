"""What is asked of a score: which pictures, with which prompts, by which metrics, into which folder."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from align.config.command import Command
from align.config.convert import option_names, shown
from align.config.errors import ConfigError, suggestion
from align.config.schema import Config

OPTIONS = [
    "metrics",
    "metrics.rewards",
    "metrics.checker",
    "prompts.column",
    "prompts.negative_column",
    "prompts.seed_column",
    "prompts.tag_columns",
    "run.folder",
    "run.root",
    "run.threads",
    "run.device",
    "run.plugins",
    "run.shared",
    "run.extend",
    "run.on_error",
    "run.verify",
    "run.gallery",
    *(name for name in option_names(Config) if name.partition(".")[0] == "judges"),
]
"""All others say how pictures are made."""


@dataclass(frozen=True)
class Options:
    """A command line of ``score`` that was read; the configuration's folder is null where none was given."""

    pictures: Path
    prompts: Path | None
    label: str | None
    out: Path | None
    config: Config


def score_config(command: Command) -> Config:
    """The composition of runs, in which only some options are given. Raises ConfigError."""
    from align.config.compose import jobs_of

    keys = [text.lstrip("+~").partition("=")[0] for text in command.overrides]
    for key in keys:
        if key not in OPTIONS:
            hint = suggestion(key, OPTIONS, "options")
            raise ConfigError(f"score takes no {shown(key)}, it makes no pictures{hint}")
    if "metrics" not in keys:
        metrics = f"metrics={'none' if 'metrics.rewards' in keys else 'paper'}"
        command = replace(command, overrides=(metrics, *command.overrides))
    (job,) = jobs_of(command)
    config = job.config
    if not config.metrics.rewards and not config.metrics.checker:
        raise ConfigError(
            f"metrics={config.metrics.name} measures nothing: give metrics=paper, or metrics.rewards=[NAME,...]"
        )
    folder = config.run.folder if "run.folder" in keys else None
    return replace(config, run=replace(config.run, folder=folder))


def default_folder(root: str, label: str, asked: Sequence[str]) -> Path:
    """``<root>/score-<label>-<digest of what was asked>``: the same for the same pictures, prompts and label."""
    digest = hashlib.sha256("\0".join(asked).encode("utf-8", "surrogatepass")).hexdigest()[:8]
    readable = re.sub(r"[^\w.+-]", "_", label, flags=re.ASCII)[:40]
    return Path(root or "/", f"score-{readable}-{digest}")
