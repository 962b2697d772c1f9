"""Plain values (what YAML holds) to the schema's dataclasses: types, ranges, and no unknown key."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from align.config.errors import ConfigError, suggestion

T = TypeVar("T")


@cache
def hints(kind: type) -> dict[str, Any]:
    """Types of a dataclass's fields by name."""
    return get_type_hints(kind, include_extras=True)


def build(kind: type[T], values: object, path: str = "") -> T:
    """An instance of a dataclass of the schema; what is left out of the nested mapping takes its default.

    Raises ConfigError: naming the first option that is unknown, missing, of the wrong type or out of range.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path or 'the configuration'}={shown(values)} is not a group of options")
    types_ = hints(kind)  # type: ignore[arg-type]
    prefix = f"{path}." if path else ""
    for key in values:
        if key not in types_:
            known = [f"{prefix}{name}" for name in types_]
            raise ConfigError(f"unknown option {prefix}{key}{suggestion(f'{prefix}{key}', known, 'options')}")
    made: dict[str, Any] = {}
    for item in dataclasses.fields(kind):  # type: ignore[arg-type]
        if item.name in values:
            made[item.name] = convert(types_[item.name], values[item.name], prefix + item.name)
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise ConfigError(f"missing option {prefix}{item.name}: give {prefix}{item.name}=...")
    return kind(**made)


def convert(kind: Any, value: object, path: str) -> Any:
    """A plain value as a value of an annotated type. Raises ConfigError."""
    origin = get_origin(kind)
    if origin is Annotated:
        inner, *ranges = get_args(kind)
        made = convert(inner, value, path)
        for one in ranges:
            if mend := one.mend(made):
                raise ConfigError(f"{path}={shown(value)} is out of range: {mend}")
        return made
    if origin in (Union, types.UnionType):
        (inner,) = (option for option in get_args(kind) if option is not type(None))
        return None if value is None else convert(inner, value, path)
    if origin is Literal:
        choices = [str(choice) for choice in get_args(kind)]
        if value in choices:
            return value
        raise ConfigError(f"{path}={shown(value)} is not a choice{suggestion(str(value), choices)}")
    if origin is tuple:
        return _tuple(get_args(kind), value, path)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path}={shown(value)} is not a mapping: give {path}={{name: number}}")
        return {str(key): convert(get_args(kind)[1], item, f"{path}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(kind):
        return build(kind, value, path)  # type: ignore[arg-type]
    return _scalar(kind, value, path)


def _tuple(members: tuple[Any, ...], value: object, path: str) -> tuple[Any, ...]:
    if isinstance(value, int | float) and members[-1] is not Ellipsis:  # one number for all places
        value = [value] * len(members)
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{path}={shown(value)} is not a list: give {path}=[...]")
    if members[-1] is Ellipsis:
        members = (members[0],) * len(value)
    if len(value) != len(members):
        raise ConfigError(f"{path}={shown(value)} has {len(value)} members: give a list of {len(members)}")
    return tuple(
        convert(kind, item, f"{path}[{place}]")
        for place, (kind, item) in enumerate(zip(members, value, strict=True))
    )


def _scalar(kind: type, value: object, path: str) -> Any:
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if math.isfinite(value):
            return float(value)
        raise ConfigError(f"{path}={shown(value)} is not finite: give a number")
    if kind is str and isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    wanted = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[kind]
    raise ConfigError(f"{path}={shown(value)} has the wrong type: give {wanted}")


def shown(value: object) -> str:
    """A value as the command line has it, shortened."""
    text = {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))
    return text if len(text) <= 60 else f"{text[:57]}..."


@cache
def option_names(kind: type, path: str = "") -> list[str]:
    """Dotted names of all options of a dataclass, with groups; a mapping of any names ends in ``.*``."""
    names: list[str] = []
    for name, hint in hints(kind).items():
        own = f"{path}.{name}" if path else name
        names.append(own)
        if get_origin(hint) in (Union, types.UnionType):
            (hint,) = (one for one in get_args(hint) if one is not type(None))
        if dataclasses.is_dataclass(hint):
            names += option_names(hint, own)  # type: ignore[arg-type]
        elif get_origin(hint) is dict:
            names.append(f"{own}.*")
    return names


def plain(value: Any) -> Any:
    """The schema's dataclasses as plain values again."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple) else value
