"""Which weight files a run needs, whether they are there, and their fingerprints.  Imports no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from align.backbones import registry as backbones
from align.checkpoints.hashes import file_hash
from align.config.schema import BackboneConfig, Config
from align.rewards.registry import EMBEDDED, REWARDS
from align.rewards.sources import PICKLES

TRAIN_SHAPES = "python scripts/train_shapes.py"
_READ = (".safetensors", ".json", ".txt", ".model", *PICKLES)
"""Files that decide what a model computes; a model card does not."""


@dataclass(frozen=True)
class Needed:
    """Files that something needs.

    Attributes:
        what: whose they are, such as "reward shapes_pick".
        folder: where they are.
        parts: files and sub-folders of it that must be there.
        mend: the exact command that brings them.
    """

    what: str
    folder: Path
    parts: tuple[str, ...]
    mend: str

    def missing(self) -> list[str]:
        """Parts that are not there, or are empty folders."""
        paths = {part: self.folder / part for part in self.parts}
        return [part for part, path in paths.items() if not (path.is_file() or any(path.glob("*")))]

    def files(self) -> list[Path]:
        """The files that decide the values, sorted."""
        found = [
            path for part in self.parts for path in (self.folder / part, *(self.folder / part).rglob("*"))
        ]
        return sorted(path for path in found if path.suffix in _READ and path.is_file())

    def fingerprint(self) -> str:
        """sha256 over the names and hashes of the files; the folder's place has no part in it."""
        digest = hashlib.sha256()
        for path in self.files():
            digest.update(f"{path.relative_to(self.folder).as_posix()} {file_hash(path)}\n".encode())
        return digest.hexdigest()


def backbone_files(backbone: BackboneConfig) -> Needed:
    """What a backbone needs."""
    embedded = backbone.weights in backbones.EMBEDDED
    mend = TRAIN_SHAPES if embedded else "give backbone.weights=FOLDER, a folder in diffusers' layout"
    return Needed(f"backbone {backbone.name}", backbones.folder_of(backbone.weights), backbones.FILES, mend)


def reward_files(name: str) -> list[Needed]:
    """What a registered reward needs, one entry for each checkpoint; an empty one for what is no model."""
    what = f"reward {name}"
    if not REWARDS[name].weights:
        return [Needed(what, EMBEDDED, (), "")]
    return [
        Needed(what if k == 0 else f"{what} ({one.reference})", one.folder, one.chosen, one.mend)
        for k, one in enumerate(REWARDS[name].weights)
    ]


def rewards_of(config: Config) -> list[str]:
    """Rewards that a run loads: those that its method uses, and metrics."""
    return list(
        dict.fromkeys([*(config.reward.terms if config.method.uses_reward else ()), *config.metrics.rewards])
    )


def reward_fingerprint(name: str) -> str:
    """Fingerprint of all files of a reward."""
    return " ".join(needed.fingerprint() for needed in reward_files(name))


def reward_record(name: str) -> dict[str, str]:
    """What tells a reward's numbers apart: facts of the registry, checkpoints, revisions, hashes of files."""
    found = dict(REWARDS[name].facts)
    for one in REWARDS[name].weights if found else ():
        found[f"revision of {one.reference}"] = one.revision
        found |= {chosen: file_hash(one.folder / chosen) for chosen in one.chosen}
    return {f"reward {name}: {key}": value for key, value in found.items()}


def needed_by(config: Config) -> list[Needed]:
    """Everything a run loads: backbone, rewards that its method uses, metrics."""
    return [
        backbone_files(config.backbone),
        *(one for name in rewards_of(config) for one in reward_files(name)),
    ]


def missing_text(needed: Iterable[Needed]) -> str:
    """What is missing and what mends it, for people; empty if nothing is."""
    lines = []
    mends: list[str] = []
    for one in needed:
        if gone := one.missing():
            lines.append(f"  {one.what}: {', '.join(gone)} in {one.folder}")
            mends.append(one.mend)
    if not lines:
        return ""
    commands = [f"  {mend}" for mend in dict.fromkeys(mends)]
    return "\n".join(["align: weights are missing", *lines, "to mend it:", *commands])
