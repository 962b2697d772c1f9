"""``${by_family:{shapes:1, sd15:2, sdxl:3}}`` in a config: a number that a method has another value of for each kind of model.

So the published settings of a method for all backbones stand in its one file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

NAME = "by_family"
ORIGIN = {"lcm": "sd15", "sd3": "sdxl", "flux": "sdxl", "flow": "sdxl", "shapes_flow": "shapes"}
"""Families that take the values of another where a method names none for them: what they were distilled from, or what is most
like them."""


def by_family(values: Mapping[str, Any], *, _root_: DictConfig) -> Any:
    """The value for ``backbone.family``, or else for its origin. Raises ValueError if there is none."""
    family = OmegaConf.select(_root_, "backbone.family", default="sd15")
    found = family if family in values else ORIGIN.get(family, family)
    if found not in values:
        known = ", ".join(map(str, values))
        raise ValueError(f"no value for backbone.family={family}, only for {known}: give the option itself")
    return values[found]


def register() -> None:
    """Make the resolver known; more than once does no harm."""
    OmegaConf.register_new_resolver(NAME, by_family, replace=True)
