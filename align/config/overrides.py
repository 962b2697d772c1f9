"""Words of a command as Hydra's grammar reads them."""

from __future__ import annotations

from functools import lru_cache

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override


@lru_cache(maxsize=4096)
def override_of(text: str) -> Override:
    """An override, read once: runs of a sweep have most in common. Raises OverrideParseException."""
    (override,) = OverridesParser.create().parse_overrides([text])
    return override
