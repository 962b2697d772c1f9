"""The weights that come with the package are the measured ones: ``SHA256SUMS`` beside them holds their hashes.  Imports no torch."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from align.checkpoints.reference import EMBEDDED
from align.errors import WrongWeights

FOLDER = EMBEDDED["shapes"]
SUMS = "SHA256SUMS"


@lru_cache(maxsize=1)
def sums() -> dict[Path, str]:
    """The recorded hash of each file, by its path."""
    lines = (FOLDER / SUMS).read_text(encoding="utf-8").splitlines()
    return {FOLDER / name: told for told, _, name in (line.partition("  ") for line in lines)}


def check_shipped(path: Path, found: str) -> None:
    """Refuse a file that comes with the package and has another hash. Raises WrongWeights."""
    if sums().get(path, found) != found:
        raise WrongWeights(
            f"{path} is damaged or not the one that comes with the package (sha256 {found[:12]}, not {sums()[path][:12]}): "
            "get it again by `git checkout`, or install the package anew; one that you trained goes into a folder of its own, "
            "or into the list by scripts/record_weights.py"
        )
