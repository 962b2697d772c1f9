"""What a file may say: options.  What names code, a host, a key, an environment variable or a shell line is the command's alone.

A config, an experiment or a row of a table may come from somebody else, and trying it must be safe.  So each value of a
composed configuration that the command line did not give itself is looked at here, before anything is resolved or started:
some of our options are the command's own; interpolations reach the configuration and nothing else; and of Hydra's part, which
sets environments, writes shell scripts and instantiates what it is told to, a file may say what an allow-list holds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from align.config.convert import shown
from align.config.errors import ConfigError
from align.config.overrides import override_of
from align.config.schema import Config
from align.reading import read_text

COMMANDS_OWN = {
    "run.plugins": "code",
    "semantics.endpoint": "a host",
    "semantics.key_variable": "an environment variable",
    "runner.address": "a host",
    "judges.http.endpoint": "a host",
    "judges.http.key_variable": "an environment variable",
    "judges.vlm.endpoint": "a host",
    "judges.vlm.key_variable": "an environment variable",
    "judges.process.command": "code",
}
"""Options that only the command line may give, and what they name."""
PRESET = ("OPENAI_API_KEY",)
"""Values of them that files may repeat: the schema's own."""
ENDPOINTS = ("semantics.endpoint", "judges.http.endpoint", "judges.vlm.endpoint")
"""Those of them that a file may name where the user's own settings allow it, see ``allowed_hosts``."""

HOSTS = "~/.config/align/hosts"
"""The user's own list of them, in ``XDG_CONFIG_HOME`` where that is set."""

_REACHES_OUT = re.compile(r"(\\*)\$\{(?!by_family:|now:[^{}$]*\}|[\w.\[\]]+\})")
"""An interpolation that is neither a place in the configuration nor the family's number nor the time."""

_NUMBERS = {
    *("job.chdir", "job_logging.version", "job_logging.root", "hydra_logging.version", "hydra_logging.root"),
    *(f"launcher.{name}" for name in ("n_jobs", "batch_size", "pre_dispatch", "timeout", "verbose")),
    *(f"launcher.{name}" for name in ("timeout_min", "max_num_timeout", "signal_delay_s", "nodes", "mem_gb")),
    *(f"launcher.{name}" for name in ("tasks_per_node", "cpus_per_task", "gpus_per_node", "gpus_per_task")),
    *(f"launcher.{name}" for name in ("cpus_per_gpu", "array_parallelism", "stderr_to_stdout")),
}
_LINES = {
    *("output_subdir", "run.dir", "sweep.dir", "sweep.subdir", "job.name"),
    *("job.config.override_dirname.kv_sep", "job.config.override_dirname.item_sep"),
    *(f"launcher.{name}" for name in ("name", "partition", "qos", "account", "constraint", "gres")),
    *(f"launcher.{name}" for name in ("mem_per_gpu", "mem_per_cpu")),
}
"""What files may say of Hydra: numbers and truth values, and texts of one line."""
_HYDRAS_OWN = re.compile(
    r"(help|hydra_help|runtime|overrides)\..*|mode|searchpath|job\.(id|num|config_name|override_dirname)"
)
"""What Hydra fills in itself, or what nothing here reads; ``overrides`` are looked at apart."""
_BASIC = "hydra._internal.core_plugins.basic_"
_NAMES_CODE = ("_target_", "()", "class")
_IMPORTS = ("ext://", "cfg://", "pkg://")


def said_by(overrides: Iterable[Iterable[str]]) -> frozenset[str]:
    """The options and groups that a command line gives, whichever values of its sweeps a run takes.

    ``overrides`` has for each the values as Hydra takes them: one, or those of a sweep.  Returns dotted names;
    of a mapping, which leaves alone what it does not name, those of its leaves.
    """
    said: set[str] = set()
    for values in overrides:
        named = [
            {path for path, _ in _leaves(one.value(), one.key_or_group)}
            for one in map(override_of, values)
            if not one.is_delete()
        ]
        said |= set.intersection(*named) if named else set()
    return frozenset(said)


def refuse_reaching_out(composed: DictConfig, said: Set[str]) -> None:
    """Refuse interpolations of files that read what is no option, such as the environment. Raises ConfigError."""
    for path, value in _leaves(OmegaConf.to_container(composed, resolve=False)):
        for text in _texts(value) if path not in said else ():
            nested = "${by_family:" in text  # in whose arguments a backslash keeps nothing from being read
            if any(nested or len(found[1]) % 2 == 0 for found in _REACHES_OUT.finditer(text)):
                raise ConfigError(
                    f"{path}={shown(text)} in a config file reads what is no option: give {path} on the command line, "
                    "or write \\${ for the characters themselves"
                )


def refuse_commands_own(config: Config, said: Set[str]) -> None:
    """Refuse options in files that only the command line may give. Raises ConfigError."""
    for path, what in COMMANDS_OWN.items():
        value = attrgetter(path)(config)
        allowed = path in ENDPOINTS and value is not None and origin(value) in allowed_hosts()
        if value and value not in PRESET and path not in said and not allowed:
            raise ConfigError(
                f"{path} in a config file names {what}, which no file may: give it on the command line"
                + (f", or a line {origin(value)} in {HOSTS}" if path in ENDPOINTS else "")
            )


def allowed_hosts() -> frozenset[str]:
    """The origins (``http://localhost:8000``) that the user's own settings let config files name, one a line."""
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    path = Path(home, *Path(HOSTS).parts[-2:]).expanduser()
    try:
        lines = read_text(path, "utf-8-sig", 1 << 20).splitlines()
    except (OSError, ValueError):
        return frozenset()
    return frozenset(origin(line.strip()) for line in lines if line.strip() and not line.startswith("#"))


def origin(url: str) -> str:
    """Scheme, host and port of a URL; of what is none the text itself."""
    try:
        parts = urlsplit(url)
        usual = {"http": 80, "https": 443}[parts.scheme]
        return f"{parts.scheme}://{parts.hostname}:{parts.port or usual}" if "@" not in url else url
    except (ValueError, KeyError):
        return url


def refuse_hydra(hydra: DictConfig, said: Set[str], overrides: int) -> None:
    """Refuse what files may not say of Hydra, and what would run any code but an installed launcher's.

    ``overrides``: how many the composition was given.  Raises ConfigError, naming the option.
    """
    leaves = dict(_leaves(OmegaConf.to_container(hydra, resolve=False)))
    targets = {kind: str(leaves.pop(f"{kind}._target_", None)) for kind in ("launcher", "sweeper")}
    launcher = _installed(targets["launcher"])
    if not launcher:
        raise ConfigError(
            f"hydra.launcher._target_={shown(targets['launcher'])} is no plugin of Hydra: "
            "give hydra/launcher the name of an installed one"
        )
    if not (targets["launcher"].startswith(_BASIC) or {"hydra/launcher", "hydra.launcher._target_"} & said):
        raise ConfigError(
            "hydra/launcher in a config file chooses where code runs, which no file may: give it on the command line"
        )
    if not targets["sweeper"].startswith(_BASIC):
        raise ConfigError(
            f"hydra.sweeper._target_={shown(targets['sweeper'])} is not supported: leave it out, -m tries all values"
        )
    copied = leaves.get("job.env_copy") if "hydra.job.env_copy" in said else None
    own = {f"job.env_set.{name}" for name in copied or ()} | {path.removeprefix("hydra.") for path in said}
    for path, value in leaves.items():
        if path.startswith("callbacks.") or path.rpartition(".")[2] in _NAMES_CODE or _imports(value):
            raise ConfigError(f"hydra.{path} would run code named by a configuration: leave it out")
        default = launcher.get(path) == value and path in launcher
        if not (path in own or default or _may_say(path, value)):
            raise ConfigError(f"hydra.{path} may not come from a config file: give it on the command line")
    if len(hydra.overrides.hydra) + len(hydra.overrides.task) != overrides:
        raise ConfigError("hydra.overrides may not come from a config file: leave it out")


@contextmanager
def composing() -> Iterator[None]:
    """Turn what Hydra trips over inside the block into a ConfigError, and keep the environment from lists of defaults.

    The names of configs in files are resolved while they are composed; all else is looked at before it is.
    """

    def refuse(name: str, *_: Any) -> None:
        raise ConfigError(f"${{oc.env:{name}}} reads the environment")

    OmegaConf.register_new_resolver("oc.env", refuse, replace=True)
    try:
        yield
    except OmegaConfBaseException:
        raise
    except KeyError as error:
        raise ConfigError(
            f"hydra.job.env_copy: the environment has no {error}: leave it out, or set it"
        ) from error
    except (AttributeError, TypeError) as error:
        line = str(error).partition("\n")[0]
        raise ConfigError(
            f"hydra cannot be composed ({line}): leave out what replaces its own options"
        ) from error
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)


def _installed(target: str) -> dict[str, Any]:
    """The options of the installed launcher that a target names, by dotted name; empty if there is none."""
    for entry in ConfigStore.instance().repo.get("hydra", {}).get("launcher", {}).values():
        leaves = dict(_leaves(OmegaConf.to_container(entry.node, resolve=False), "launcher"))
        if leaves.get("launcher._target_") == target:
            return leaves
    return {}


def _may_say(path: str, value: Any) -> bool:
    """Whether a file may say that: what is allowed, what says nothing, and what nothing reads."""
    if value in (None, False, "", "???", [], {}) or _HYDRAS_OWN.fullmatch(path):
        return True
    if path in _NUMBERS:
        return isinstance(value, int | float)
    return path in _LINES and isinstance(value, str) and value.isprintable() and "${" not in value


def _imports(value: Any) -> bool:
    return any(text.startswith(_IMPORTS) for text in _texts(value))


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted paths and values of all that is no mapping with anything in it."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | Mapping):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(inner)
