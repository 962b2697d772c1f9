"""Image embeddings of saved pictures: what the diversity of runs is measured in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from align.analysis.intervals import Floats
from align.analysis.spread import Embedded
from align.errors import WeightsError
from align.pictures import PictureError, saved_picture
from align.store.errors import ReportError

if TYPE_CHECKING:
    from PIL.Image import Image

_AT_ONCE = 256


def embeddings(features: str, paths: Iterable[Path]) -> Embedded:
    """Embeddings of saved pictures; equal files are embedded once, so that they are equal to the bit.

    Raises:
        ReportError: the features are unknown, or their weights are missing or damaged.
    """
    import torch

    from align.rewards.errors import RewardError
    from align.rewards.features import embed, features_reward, load_features

    try:
        model = load_features(features, "cuda" if torch.cuda.is_available() else "cpu")
    except (WeightsError, RewardError) as error:
        raise ReportError(str(error)) from error
    places: dict[str, list[str]] = {}
    waiting: dict[str, Image] = {}
    found: dict[str, Floats] = {}

    def work() -> None:
        if waiting:
            rows = embed(model, list(waiting.values())).double().numpy()
            for hashed, row in zip(waiting, rows, strict=True):
                found[hashed] = row
            waiting.clear()

    for path in _told(list(paths), features):
        try:
            data, picture = saved_picture(path)
        except PictureError:
            continue
        hashed = hashlib.sha256(data).hexdigest()
        if hashed not in places:
            waiting[hashed] = picture
        places.setdefault(hashed, []).append(str(path))
        if len(waiting) == _AT_ONCE:
            work()
    work()
    rows = {path: row for hashed, row in found.items() for path in places[hashed]}
    return Embedded(rows, features_reward(features))


def _told(paths: list[Path], features: str) -> Iterable[Path]:
    """The paths, with a bar on stderr while they are walked if somebody looks."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    told = f"{features} of {len(paths)} pictures"
    return track(paths, told, console=console, transient=True, disable=not console.is_terminal)
