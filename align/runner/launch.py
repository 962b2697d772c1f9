"""Starting the runs of a command: here, one after another, or through another launcher of Hydra."""

from __future__ import annotations

from collections.abc import Sequence, Set
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig
from rich.console import Console

from align.config.command import Command
from align.config.compose import BASIC_LAUNCHER, Job, checked, explained, said_of, search_path
from align.config.errors import ConfigError
from align.config.no_code import refuse_hydra
from align.config.schema import Config
from align.output import printing
from align.runner.default_folder import in_folders
from align.runner.exits import CONFIGURATION, DONE, INTERRUPTED, tell
from align.runner.files import files_of
from align.runner.folders import check_folder, refuse_sharing
from align.runner.prepare import Prepared, prepare

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn


def launch(command: Command, jobs: Sequence[Job]) -> int:
    """Do all runs of a command; returns the exit code. Raises ConfigError and FilesMissing before any starts."""
    for job in jobs:
        for name in ("blackbox", "surrogate", "rounds"):
            if getattr(job.config, name) is not None:
                raise ConfigError(
                    f"{name} is not read by a run: give python -m align online, or leave it out"
                )
    hydra = jobs[0].hydra
    if hydra.launcher._target_ != BASIC_LAUNCHER:
        if not command.multirun:
            raise ConfigError("hydra/launcher only works on multiruns: add -m")
        if any(job.config.budget.seconds is not None for job in jobs):
            raise ConfigError(
                "budget.seconds is measured on the machine that makes the pictures, and hydra/launcher has others: give budget.calls"
            )
        refuse_sharing(_prepared(jobs), together=True)
        return _elsewhere(command)
    return _run(_prepared(jobs))


def _prepared(jobs: Sequence[Job]) -> list[Prepared]:
    found = files_of(job.config for job in jobs)
    return prepare([job.config for job in in_folders(jobs, found)], found[0])


def run_all(configs: Sequence[Config]) -> int:
    """Do some runs here, one after another, though one fails or cannot use its folder; returns the worst exit code.

    Raises ConfigError, FilesMissing before any starts.
    """
    return _run(prepare(configs))


def _run(ready: Sequence[Prepared]) -> int:
    from align.runner.finish import show_comparison
    from align.runner.run import run

    refuse_sharing(ready)
    console = Console(soft_wrap=False)
    usable: list[Prepared] = []
    started: list[Prepared] = []
    worst = DONE
    for prepared in ready:
        try:
            check_folder(prepared)
            usable.append(prepared)
        except ConfigError as error:
            worst = tell(error)
    for prepared in usable:
        if started:
            console.print()
        try:
            code = run(prepared, console)
        except Exception as error:
            code = tell(error)
        if code == INTERRUPTED:
            return code
        if code != CONFIGURATION:
            started.append(prepared)
        worst = max(worst, code)
    folders = list(dict.fromkeys(Path(str(one.config.run.folder)) for one in started))
    if len(folders) > 1 and all(one.config.run.gallery for one in ready):
        console.print()
        parents = {folder.parent for folder in folders}
        show_comparison(folders, parents.pop() if len(parents) == 1 else Path("."), console)
    return worst


def _elsewhere(command: Command) -> int:
    """Give a multirun to the launcher that ``hydra/launcher`` names; each job is a call of ``run_job``."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from align.config.compose import parse_overrides, search_order

    home, *_ = search_order(command)
    keep = [*search_path(command), *map(_as_sweep, parse_overrides(command))]
    with (
        explained(command.config_dir),
        initialize_config_dir(str(home), job_name="align", version_base="1.3"),
    ):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        batches = hydra.multirun(
            config_name=command.config_name,
            task_function=partial(run_job, said=said_of(command), overrides=len(keep)),
            overrides=keep,
            with_log_configuration=False,
        )
    return max((_code(job) for batch in batches for job in batch), default=DONE)


def _code(job: JobReturn) -> int:
    try:
        return int(job.return_value)
    except Exception as error:  # what the job raised
        return tell(error)


def _as_sweep(values: Sequence[str]) -> str:
    if len(values) == 1:
        return values[0]
    key = values[0].partition("=")[0]
    return f"{key}={','.join(value.partition('=')[2] for value in values)}"


def run_job(composed: DictConfig, *, said: Set[str], overrides: int) -> int:
    """One job of another launcher, composed anew where it runs, so that its files are looked at anew; its exit code.

    ``said`` is what the command line gave (``no_code.said_by``), in that many ``overrides``.
    """
    from hydra.core.hydra_config import HydraConfig

    with printing():
        try:
            hydra: Any = HydraConfig.get()
            refuse_hydra(hydra, said, overrides)
            texts = tuple(hydra.overrides.task)
            return _run(_prepared([Job(checked(composed, texts, said), texts, hydra)]))
        except Exception as error:
            return tell(error)
