"""Composition: config groups and command-line overrides to checked configurations, with Hydra.

Hydra's compose interface is used, not ``hydra.main``: a run has its own folder, so Hydra shall make none, and
errors shall be one line.  All jobs of a multirun are composed and checked before the first one starts.
Overrides of unknown keys are refused here by the schema's names, and all others are forced (``++``), so a
YAML need only hold what differs from the schema's defaults.  No ``_target_`` is ever instantiated.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from align.config import source
from align.config.check import check_config
from align.config.command import Command
from align.config.convert import build, option_names, shown
from align.config.errors import ConfigError, nearest, suggestion
from align.config.family import register
from align.config.no_code import composing, refuse_commands_own, refuse_hydra, refuse_reaching_out, said_by
from align.config.overrides import override_of
from align.config.places import config_folders, group_choices
from align.config.plugins import read_plugins, read_surrogates
from align.config.schema import GROUPS, Config

BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"


@dataclass(frozen=True)
class Job:
    """One run of a command: its checked configuration, without a folder where none was given, and Hydra's own.

    ``overrides`` are the command's, sweeps resolved, as Hydra takes them.
    """

    config: Config
    overrides: tuple[str, ...]
    hydra: DictConfig


def jobs_of(command: Command, objections: list[ConfigError] | None = None) -> list[Job]:
    """Compose and check every run that a command asks for. Raises ConfigError.

    ``objections`` takes what is wrong between options that are each right, for whoever looks at such runs all the
    same.
    """
    home, *_ = search_order(command)
    source.register()
    with (
        explained(command.config_dir),
        initialize_config_dir(str(home), job_name="align", version_base="1.3"),
    ):
        overrides = parse_overrides(command)
        said = said_of(command)
        return [_job(command, list(chosen), said, objections) for chosen in itertools.product(*overrides)]


def said_of(command: Command) -> frozenset[str]:
    """What the command line itself gives, see ``no_code.said_by``."""
    return said_by(parse_overrides(replace(command, told=())))


def _job(command: Command, overrides: list[str], said: Set[str], objections: list[ConfigError] | None) -> Job:
    register()
    texts = [*search_path(command), *overrides]
    with composing():
        composed = compose(command.config_name, texts, return_hydra_config=True)
    hydra = composed.hydra
    refuse_hydra(hydra, said, len(texts))
    OmegaConf.set_struct(composed, False)
    del composed["hydra"]
    return Job(checked(composed, overrides, said, objections), tuple(overrides), hydra)


def checked(
    composed: DictConfig,
    overrides: Sequence[str],
    said: Set[str],
    objections: list[ConfigError] | None = None,
) -> Config:
    """The schema's configuration of a composed one, without Hydra's own part, checked. Raises ConfigError.

    ``said`` is what the command line itself gives (``no_code.said_by``); for ``objections`` see ``jobs_of``.
    """
    refuse_reaching_out(composed, said)
    values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    given = {text.lstrip("+").partition("=")[0] for text in overrides}
    config = _own_weights(build(Config, values), given)
    refuse_commands_own(config, said)
    read_plugins(config.run.plugins)
    read_surrogates(config.reward.files)
    try:
        check_config(config)
    except ConfigError as error:
        if objections is None:
            raise
        objections.append(error)
    return config


def _own_weights(config: Config, given: Set[str]) -> Config:
    """Drop a preset's alternatives where the command names other weights: they stand in for the preset's alone."""
    if "backbone.weights" not in given or "backbone.alternatives" in given:
        return config
    return replace(config, backbone=replace(config.backbone, alternatives=()))


def search_path(command: Command) -> list[str]:
    """The override that adds the folder of config groups beside the one that holds the primary config."""
    return [f"hydra.searchpath=[{quoted(f'file://{folder}')}]" for folder in search_order(command)[1:]]


def quoted(text: str) -> str:
    """A text as the value of an override, whatever it holds."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def parse_overrides(command: Command) -> list[list[str]]:
    """For each override its values as Hydra takes them: one, or with ``-m`` those of a sweep. Raises ConfigError."""
    parsed: dict[str, list[str]] = {}
    for text in (*command.told, *command.overrides):
        try:
            override = override_of(text)
        except OverrideParseException as error:
            key, _, value = text.partition("=")
            example = '["a, b", "c"]' if value.startswith("[") else '"a, b"'
            raise ConfigError(
                f"cannot read {shown(text)!r} ({_first_line(error)}): "
                f"put special characters in quotes, as in '{key}={example}'"
            ) from error
        key = override.key_or_group
        if override.package is not None:
            raise ConfigError(f"{text}: packages are not used here; give {key}=VALUE")
        # The last of several overrides of one key counts; their order is kept, as merging may depend on it.
        parsed.pop(key, None)
        parsed[key] = _values(override, text, command)
    return list(parsed.values())


def _values(override: Override, text: str, command: Command) -> list[str]:
    key = override.key_or_group
    value = override.value()
    values = _sweep(override, text, command) if override.is_sweep_override() else None
    if key in GROUPS:
        choices = group_choices(key, command.config_dir)
        for chosen in values if values is not None else [value]:
            if chosen not in choices and not (key == "experiment" and chosen in (None, "null")):
                if isinstance(chosen, str | int | float | bool):
                    raise ConfigError(
                        f"{key}={shown(chosen)}: there is no such {key}{suggestion(str(chosen), choices)}"
                    )
                if not override.is_delete():
                    raise ConfigError(f"{text}: give the name of a {key}, one of {', '.join(choices)}")
        prefix = "~" if override.is_delete() else ""
        return [f"{prefix}{key}={chosen}" for chosen in values] if values is not None else [text.lstrip("+")]
    if key == "hydra" or key.startswith(("hydra.", "hydra/")):
        if values is not None:
            raise ConfigError(f"{text}: Hydra's own options cannot be swept")
        return [text]
    _known(key)
    if key in ("prompts.text", "negative"):
        _refuse_interpolation(key, text)
    if override.is_delete():
        return [text]
    force = "++" + text.lstrip("+")
    return [f"++{key}={chosen}" for chosen in values] if values is not None else [force]


def _refuse_interpolation(key: str, text: str) -> None:
    """Prompts are texts: nothing in them shall be replaced by another option's value, or fail as there is none."""
    if found := re.search(r"(?<!\\)(?:\\\\)*(\$\{[^{}]*\}?)", text):
        raise ConfigError(
            f"{key} holds {shown(found.group(1))}, which would be replaced by an option's value: "
            f"write \\{shown(found.group(1))} for the text itself"
        )


def _sweep(override: Override, text: str, command: Command) -> list[str]:
    if not command.multirun:
        key, _, values = shown(text).partition("=")
        raise ConfigError(
            f"{shown(text)} has several values: add -m to run each, "
            f"write {key}=[{values}] for a list, or '{key}=\"{values}\"' for a text with a comma"
        )
    if not override.is_discrete_sweep():
        raise ConfigError(f"{text}: only lists of values, choice(), range() and glob() can be swept here")
    if override.key_or_group in GROUPS and "glob(" in text:
        glob: Any = override.value()
        return list(glob.filter(group_choices(override.key_or_group, command.config_dir)))
    return list(override.sweep_string_iterator())


def _known(key: str) -> None:
    names = option_names(Config)
    if key in names or any(name.endswith(".*") and key.startswith(name[:-1]) for name in names):
        return
    known = [name for name in names if not name.endswith(".*")]
    parent, _, leaf = key.rpartition(".")
    inside = [name for name in known if parent in names and name.startswith(f"{parent}.")]
    if inside:
        near = [name for one in nearest(leaf, map(_leaf, inside)) for name in inside if _leaf(name) == one]
    else:
        near = nearest(key, [*known, *GROUPS])
    if near:
        hint = f"did you mean {' or '.join(near[:3])}?"
    elif inside:
        hint = (
            f"options of {parent}: {', '.join(name for name in inside if name == f'{parent}.{_leaf(name)}')}"
        )
    else:
        hint = f"groups: {', '.join(GROUPS)} (see --help)"
    raise ConfigError(f"unknown option {shown(key)}; {hint}")


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def search_order(command: Command) -> list[Path]:
    """The folders of configs, first the one that holds the primary config. Raises ConfigError if none does."""

    def lacks(folder: Path) -> bool:
        return not (folder / f"{command.config_name}.yaml").is_file()

    folders = sorted((folder.resolve() for folder in config_folders(command.config_dir)), key=lacks)
    if lacks(folders[0]):
        raise ConfigError(
            f"--config-name {command.config_name}: there is no such config; leave it out, or add --config-dir"
        )
    return folders


@contextmanager
def explained(config_dir: Path | None = None) -> Iterator[None]:
    """Turn what Hydra, OmegaConf and YAML raise inside the block into one line."""
    try:
        yield
    except yaml.YAMLError as error:
        raise ConfigError(_yaml_line(error)) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_line(error, config_dir)) from error
    except RecursionError as error:
        raise ConfigError(
            "the configuration is nested too deep: write lists and mappings with fewer levels"
        ) from error
    except OSError as error:
        raise ConfigError(f"a config file cannot be read: {_first_line(error)}") from error


def _yaml_line(error: yaml.YAMLError) -> str:
    mark: Any = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or _first_line(error)
    if mark is None:
        return f"a config file is not YAML: {problem}"
    place = os.path.relpath(mark.name) if os.path.isabs(mark.name) else mark.name
    return f"{place}, line {mark.line + 1}, column {mark.column + 1}: {problem}; mend the file's YAML"


def _line(error: BaseException, config_dir: Path | None) -> str:
    """Its innermost cause says most."""
    text = str(error)
    if found := re.search(r"In '([^']*)': Could not find '([^']+)/([^'/]+)'", text):
        place, group, name = found.groups()
        hint = suggestion(name, group_choices(group, config_dir))
        return f"config {place}: there is no {group} {name!r}{hint}"
    cause: BaseException = error
    while not str(cause).strip() and cause.__cause__ is not None:
        cause = cause.__cause__
    key = getattr(cause, "full_key", None)
    line = _first_line(cause)
    return f"{key}: {line}" if key and str(key) not in line else line


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    useful = [
        line
        for line in lines
        if not line.startswith(("See http", "^", "LexerNoViable", "Set the environment"))
    ]
    first, *more = useful or lines or [type(error).__name__]
    return (f"{first} {more[0]}" if first.endswith(":") and more else first.rstrip("."))[:200]
