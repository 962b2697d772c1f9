"""Where the files of a reward come from: embedded, the hub's cache, a download, or a folder of the user's.

The environment variable ``ALIGN_CHECKPOINTS`` names a folder of own copies: what is in its sub-folder
``owner/name`` goes before the hub's cache (and before the download) of that repository, for every reward.
Imports no torch and never touches the network.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from align.checkpoints.layout import SAFE, weight_files
from align.checkpoints.reference import EMBEDDED, fetch_command, folder_of, hub_names, hub_reference

OWN = "ALIGN_CHECKPOINTS"
"""The environment variable that names the folder of own copies."""

PICKLES = (".pt", ".pth", ".bin")
"""Endings of checkpoints that are pickles."""

DOCTOR = "python -m align doctor --fetch"
TRAIN_SHAPES = "python scripts/train_shapes.py rewards"


def cache() -> Path:
    """The project's own folder beside the hub's cache, ``<HF_HOME>/align``, there or not."""
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / "align"


@dataclass(frozen=True)
class Files:
    """Files of one checkpoint that a reward reads.

    A pickle may be replaced by a file of the same name with the ending ``.safetensors``, which then goes first.

    Attributes:
        reference: whose they are, in the grammar of :mod:`align.checkpoints.reference`; for a download the
            ``owner/name`` that it is published under.
        names: files and sub-folders that must be there.
        url: address of the only file, if it is not on the hub.
        sha256: of the file at ``url``, 64 hex digits.
        reward: name of a reward that reads the file at ``url``, for the command that fetches it.
    """

    reference: str
    names: tuple[str, ...]
    url: str = ""
    sha256: str = ""
    reward: str = ""

    @property
    def folder(self) -> Path:
        """Where they are looked for, whether they are there or not."""
        hub = hub_reference(self.reference)
        if hub is None:
            return folder_of(self.reference)
        if own := os.environ.get(OWN):
            folder = Path(own).expanduser() / hub.repo / hub.folder
            if folder.is_dir():
                return folder
        return self.target.parent if self.url else folder_of(self.reference)

    @property
    def target(self) -> Path:
        """Where the file at ``url`` belongs, ``<HF_HOME>/align/owner/name/FILE``."""
        return cache() / self.reference / self.names[0]

    @property
    def chosen(self) -> tuple[str, ...]:
        """The names with weights in the form that is there: safetensors for a pickle, shards with their index, half precision."""
        return tuple(one for name in self.names for one in self._form(name))

    def _form(self, name: str) -> tuple[str, ...]:
        if name.endswith(PICKLES):
            return (safe if (self.folder / (safe := _safe(name))).is_file() else name,)
        return weight_files(self.folder, name) if name.endswith(SAFE) else (name,)

    @property
    def paths(self) -> list[Path]:
        """The chosen files, in the order of ``names``."""
        return [self.folder / name for name in self.chosen]

    @property
    def mend(self) -> str:
        """The command that brings them."""
        if self.url:
            return f"{DOCTOR} 'metrics.rewards=[{self.reward}]'"
        hub = hub_reference(self.reference)
        if hub is None:
            embedded = self.reference in EMBEDDED
            return TRAIN_SHAPES if embedded else f"put {', '.join(self.names)} into {self.folder}"
        there = [(name,) if name.endswith(PICKLES) else self._form(name) for name in self.names]
        return fetch_command(hub, hub_names(hub, (one for form in there for one in form)))

    @property
    def revision(self) -> str:
        """The commit that the hub's cache holds; ``local`` for anything else."""
        folder = self.folder
        hub = hub_reference(self.reference)
        for _ in PurePosixPath(hub.folder).parts if hub else ():
            folder = folder.parent
        return folder.name if folder.parent.name == "snapshots" else "local"


def _safe(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(".safetensors"))
