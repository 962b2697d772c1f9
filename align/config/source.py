"""Config files of the user are looked at before Hydra reads them: a few lines of YAML can stand for more than any memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource as HydrasSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from omegaconf.errors import OmegaConfBaseException

from align.config.errors import ConfigError
from align.config.places import conf_folder
from align.reading import read_text

LARGEST = 1 << 20
"""Bytes of a config file."""
MOST_VALUES = 100_000
"""In a config file, every alias replaced by what it stands for."""


class FileConfigSource(HydrasSource):
    """Hydra's own source of files, which reads only what was looked at; its name too, or jobs elsewhere refuse it."""

    def load_config(self, config_path: str) -> ConfigResult:
        path = os.path.realpath(os.path.join(self.path, self._normalize_file_name(config_path)))
        try:
            changed = os.stat(path).st_mtime_ns
            if not Path(path).is_relative_to(conf_folder()):
                _check(path, changed)
            found = _read(self.provider, self.path, config_path, changed)
            return replace(found, config=deepcopy(found.config))  # Hydra takes its own out of it
        except RecursionError:
            problem = "it is nested too deep: write lists and mappings with fewer levels"
        except UnicodeDecodeError as error:
            problem = f"it is not UTF-8 (byte {error.start}): save it as UTF-8"
        except (OSError, OmegaConfBaseException) as error:
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            problem = f"it cannot be read ({reason}): mend the file"
        raise ConfigError(f"{os.path.relpath(path)}: {problem}") from None


def register() -> None:
    """Make Hydra read files so; more than once does no harm."""
    Plugins.instance()  # which enters Hydra's own source first
    SourcesRegistry.instance().types[FileConfigSource.scheme()] = FileConfigSource


@lru_cache(maxsize=1024)  # all runs of a command read the same files
def _read(provider: str, folder: str, config_path: str, changed: int) -> ConfigResult:
    return HydrasSource(provider, folder).load_config(config_path)


@lru_cache(maxsize=1024)
def _check(path: str, changed: int) -> None:
    text = read_text(path, largest=LARGEST)
    if "*" not in text:
        return
    try:
        values = _values(yaml.compose(text, yaml.SafeLoader), {})
    except yaml.YAMLError:
        return  # which Hydra's reading tells with its line
    if values > MOST_VALUES:
        raise ConfigError(
            f"{os.path.relpath(path)}: its aliases stand for more than {MOST_VALUES:,} values: write them out"
        )


def _values(node: yaml.Node | None, known: dict[int, float]) -> float:
    """How many values a node stands for, aliases followed; an endless one has infinitely many."""
    if node is None:
        return 0
    if id(node) not in known:
        known[id(node)] = float("inf")  # for whoever comes back here from inside
        known[id(node)] = 1 + sum(_values(inner, known) for inner in _inside(node))
    return known[id(node)]


def _inside(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value
