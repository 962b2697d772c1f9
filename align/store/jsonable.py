"""Values of rows and configurations as JSON values, exactly."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import partial
from typing import Any


def json_value(value: Any, *, nonfinite_as_text: bool = False) -> Any:
    """``value`` in terms of None, bool, int, float, str, list and dict.

    Floats keep every bit. A float that is not finite becomes None, or with ``nonfinite_as_text`` the text
    "nan", "inf" or "-inf" (for configurations, where infinity is a setting and not an accident). Scalars and
    arrays of array libraries are recognised by their ``tolist``; anything else unknown becomes its ``str``.
    """
    plain = partial(json_value, nonfinite_as_text=nonfinite_as_text)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        return str(float(value)) if nonfinite_as_text else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return list(map(plain, value))
    if isinstance(value, set | frozenset):
        return sorted(map(plain, value), key=str)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return plain(value.tolist()) if hasattr(value, "tolist") else str(value)
