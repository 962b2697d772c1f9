"""The default folder of a run: readable, the same for the same command, and apart for different ones."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from align.config.schema import Config

_TOLD = re.compile(
    r"(backbone|method|prompts|experiment|metrics|seed|samples|run\..*|runner|runner\..*|prompts\..*|metrics\..*"
    r"|semantics\.(endpoint|key_variable|retries|timeout)|hydra.*)="
)
"""Overrides that the folder's name tells already, or that don't decide what a picture looks like."""


def default_folder(config: Config, overrides: Iterable[str]) -> str:
    """``<root>/<backbone>-<method>-<prompts>-seed<seed>``, then what else the command changed.

    Args:
        config: the run.
        overrides: the command's ``key=value`` texts.
    """
    name = f"{config.backbone.name}-{config.method.name}-{config.prompts.name}-seed{config.seed}"
    changed = sorted(text.lstrip("+") for text in overrides if not _TOLD.match(text.lstrip("+")))
    if changed:
        name += f"-{_readable(changed)}"
    return f"{config.run.root.rstrip('/') or '/'}/{name}"


def _readable(changed: list[str]) -> str:
    full = ",".join(changed)
    short = ",".join(
        text.partition("=")[0].rpartition(".")[2] + "=" + text.partition("=")[2] for text in changed
    )
    clean = re.sub(r"[^A-Za-z0-9_.=+,-]", "_", short)
    # Two options may have the same last part: the digest keeps their folders apart.
    ambiguous = len({text.partition("=")[0].rpartition(".")[2] for text in changed}) < len(changed)
    if clean == short and len(clean) <= 60 and not ambiguous:
        return clean
    return f"{clean[:40]}-{hashlib.sha256(full.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
