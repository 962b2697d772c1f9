"""The user's own rewards: Python files named on the command line, each run once, and saved surrogates; then they have names."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from align.config.errors import ConfigError
from align.errors import WeightsError
from align.rewards.errors import RewardError


def read_plugins(files: Sequence[str]) -> None:
    """Run files, unless this process has; call it before anything looks for a reward by name. Raises ConfigError."""
    if not files:
        return
    from align.rewards.plugins import read_plugin

    for file in files:
        path = Path(file).expanduser()
        if not path.is_file():
            raise ConfigError(f"run.plugins: there is no file {file}; give the path of a Python file")
        try:
            added = read_plugin(path)
        except (Exception, SystemExit) as error:
            raise ConfigError(
                f"run.plugins: {file}{_line(error, path)}: {type(error).__name__}: {error}; mend the file"
            ) from error
        if not added:
            raise ConfigError(
                f"run.plugins: {file} adds no reward: write @reward(differentiable=...) above a function"
            )


def read_surrogates(files: Mapping[str, str]) -> None:
    """Make saved surrogates rewards by their names; likewise. Raises ConfigError."""
    from align.surrogates.spec import register

    for name, file in files.items():
        if not Path(file).expanduser().is_file():
            raise ConfigError(
                f"reward.files.{name}: there is no file {file}; give the path of a saved surrogate"
            )
    try:
        register(files)
    except (WeightsError, RewardError) as error:
        raise ConfigError(f"reward.files: {error}; give files that python -m align online saved") from error


def _line(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}"
    own = [
        frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path.resolve())
    ]
    return f", line {own[-1].lineno}" if own else ""
