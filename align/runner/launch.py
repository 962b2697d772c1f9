"""Starting the runs of a command: here, one after another, or through another launcher of Hydra."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from align.config.command import Command
from align.config.compose import BASIC_LAUNCHER, BASIC_SWEEPER, Job, checked, explained, search_path
from align.config.errors import ConfigError
from align.config.schema import Config
from align.runner.exits import DONE, INTERRUPTED
from align.runner.prepare import prepare


def launch(command: Command, jobs: Sequence[Job]) -> int:
    """Do all runs of a command; returns the exit code.

    Raises:
        ConfigError, MissingWeights: before any of them starts.
    """
    hydra = jobs[0].hydra
    if hydra.sweeper._target_ != BASIC_SWEEPER:
        raise ConfigError(
            f"hydra/sweeper={hydra.sweeper._target_} is not supported: leave it out, -m tries all values"
        )
    if hydra.launcher._target_ != BASIC_LAUNCHER:
        if not command.multirun:
            raise ConfigError("hydra/launcher only works on multiruns: add -m")
        prepare([job.config for job in jobs])
        return _elsewhere(command)
    return run_all([job.config for job in jobs])


def run_all(configs: Sequence[Config]) -> int:
    """Do some runs here, one after another; a failed one does not stop the next. Returns the worst exit code.

    Raises:
        ConfigError, MissingWeights: see ``prepare``, before any of them starts.
        ConfigError: also when a run's folder cannot be used.
    """
    from align.runner.finish import show_comparison
    from align.runner.run import run

    ready = prepare(configs)
    console = Console(soft_wrap=False)
    worst = DONE
    for number, prepared in enumerate(ready):
        if number:
            console.print()
        code = run(prepared, console)
        if code == INTERRUPTED:
            return code
        worst = max(worst, code)
    folders = list(dict.fromkeys(Path(str(config.run.folder)) for config in configs))
    if len(folders) > 1 and all(config.run.gallery for config in configs):
        console.print()
        show_comparison(folders, _common(folders), console)
    return worst


def _common(folders: Sequence[Path]) -> Path:
    """The folder that holds all of them, or the current one."""
    parents = {folder.parent for folder in folders}
    return parents.pop() if len(parents) == 1 else Path(".")


def _elsewhere(command: Command) -> int:
    """Give a multirun to the launcher that ``hydra/launcher`` names; each job is a call of ``run_job``."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from align.config.compose import parse_overrides, search_order

    home, *_ = search_order(command)
    keep = [text for values in parse_overrides(command) for text in [_as_sweep(values)]]
    with (
        explained(command.config_dir),
        initialize_config_dir(str(home), job_name="align", version_base="1.3"),
    ):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        batches = hydra.multirun(
            config_name=command.config_name,
            task_function=run_job,
            overrides=[*search_path(command), *keep],
            with_log_configuration=False,
        )
    return max((int(job.return_value) for batch in batches for job in batch), default=DONE)


def _as_sweep(values: Sequence[str]) -> str:
    if len(values) == 1:
        return values[0]
    key = values[0].partition("=")[0]
    return f"{key}={','.join(value.partition('=')[2] for value in values)}"


def run_job(composed: DictConfig) -> int:
    """One job of another launcher; returns its exit code."""
    from hydra.core.hydra_config import HydraConfig

    return run_all([checked(composed, list(HydraConfig.get().overrides.task))])
