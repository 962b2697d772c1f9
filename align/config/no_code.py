"""No configuration makes Hydra import or run what it names.

Options of ours are plain values (see schema), and nothing of them is instantiated.  Hydra's own part is another matter: it
instantiates launchers, sweepers and callbacks and hands its logging options to ``logging.config.dictConfig``, and a user's YAML
can reach all of that with ``# @package hydra``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from align.config.errors import ConfigError

PLUGINS = ("hydra._internal.core_plugins.", "hydra_plugins.")
"""Where launchers and sweepers live that somebody installed."""
_INSTANTIATED = ("launcher._target_", "sweeper._target_")
_NAMES_CODE = ("_target_", "()", "class")
_IMPORTS = ("ext://", "cfg://", "pkg://")


def refuse_code(hydra: DictConfig) -> None:
    """Refuse Hydra options that name code, an installed launcher or sweeper aside.

    Args:
        hydra: Hydra's own part of a composed configuration.

    Raises:
        ConfigError: naming the option.
    """
    if hydra.callbacks:
        raise ConfigError("hydra.callbacks would run code named by a configuration: leave it out")
    for path, value in _leaves(OmegaConf.to_container(hydra, resolve=False)):
        if path in _INSTANTIATED:
            if not str(value).startswith(PLUGINS):
                option = path.partition(".")[0]
                raise ConfigError(
                    f"hydra.{path}={value} is no plugin of Hydra: give hydra/{option} the name of an installed one"
                )
        elif path.rpartition(".")[2] in _NAMES_CODE or str(value).startswith(_IMPORTS):
            raise ConfigError(f"hydra.{path}={value} would run code named by a configuration: leave it out")


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted paths and values of all that is no mapping or list."""
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in pairs:
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value
