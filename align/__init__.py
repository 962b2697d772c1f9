"""Inference-time alignment of text-to-image diffusion models: one sampling loop, many methods.

Five names for notebooks and other programs, each imported when it is first used: ``sample``, ``improve``, ``score``,
``open_run`` and the ``Picture`` that the first two return (docs/python.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from align.api import Picture, improve, open_run, sample, score

__all__ = ["Picture", "improve", "open_run", "sample", "score"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'align' has no attribute {name!r}")
    from align import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
