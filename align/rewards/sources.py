"""Where the files of a reward come from: embedded, the hub's cache, a download, or a folder of the user's.

The environment variable ``ALIGN_CHECKPOINTS`` names a folder of own copies: what is in its sub-folder
``owner/name`` goes before the hub's cache (and before the download) of that repository, for every reward.
Imports no torch and never touches the network.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from align.checkpoints.fetch import UrlFile
from align.checkpoints.layout import PICKLES, SAFE, weight_files
from align.checkpoints.needed import Needed, hub_needed
from align.checkpoints.reference import EMBEDDED, fetch_command, folder_of, hub_names, hub_reference

OWN = "ALIGN_CHECKPOINTS"
"""The environment variable that names the folder of own copies."""

DOCTOR = "python -m align doctor --fetch"
TRAIN_SHAPES = "python scripts/train_shapes.py rewards"


def cache() -> Path:
    """The project's own folder beside the hub's cache, ``<HF_HOME>/align``, there or not."""
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / "align"


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint, and what of it a reward reads.

    A pickle may be replaced by a file of the same name with the ending ``.safetensors``, which then goes first.
    """

    reference: str
    """As ``align.checkpoints.reference`` has it; for a download the ``owner/name`` that it is published under."""
    names: tuple[str, ...]
    """Files and sub-folders that must be there."""
    url: str = ""
    """Address of the only file, if it is not on the hub; its hash, 64 hex digits; a reward whose files ``doctor`` fetches."""
    sha256: str = ""
    reward: str = ""
    page: str = ""
    """Where people get what nothing here may fetch for them."""
    about: str = ""
    """Its size and licence, for people."""
    shards: bool = False
    """Whether its weights are so large that the hub has them in shards."""

    @property
    def target(self) -> Path:
        """Where the file at ``url`` belongs, ``<HF_HOME>/align/owner/name/FILE``."""
        return cache() / self.reference / self.names[0]

    def find(self, what: str, embedded: Path = EMBEDDED["shapes"]) -> Needed:
        """Its files on this machine, there or not, each in the form that is there; ``what`` names them in messages."""
        return replace(self._find(what, embedded), about=self.about)

    def _find(self, what: str, embedded: Path) -> Needed:
        if self.reference in EMBEDDED:
            return Needed(what, embedded, self.names, TRAIN_SHAPES)
        hub = hub_reference(self.reference)
        if hub is None:
            folder = folder_of(self.reference)
            parts = tuple(one for name in self.names for one in _form(folder, name))
            return Needed(what, folder, parts, f"put {', '.join(self.names)} into {folder}")
        own = Path(os.environ.get(OWN) or os.devnull).expanduser() / hub.repo / hub.folder
        usual = self.target.parent if self.url or self.page else folder_of(self.reference)
        folder = own if own.is_dir() else usual
        forms = [_form(folder, name) for name in self.names]
        parts = tuple(one for form in forms for one in form)
        if self.page:
            return Needed(
                what, folder, parts, f"get {', '.join(self.names)} from {self.page} and put it into {folder}"
            )
        if self.url:
            urls = (UrlFile(self.url, self.sha256, self.target),)
            return Needed(what, folder, parts, f"{DOCTOR} 'metrics.rewards=[{self.reward}]'", None, urls)
        # Of a pickle the hub has no other form.
        there = [(n,) if n.endswith(PICKLES) else form for n, form in zip(self.names, forms, strict=True)]
        if self.shards:
            return replace(hub_needed(what, hub, parts, shards=True), folder=folder)
        names = hub_names(hub, (one for form in there for one in form))
        return Needed(what, folder, parts, fetch_command(hub, names), hub)


def _form(folder: Path, name: str) -> tuple[str, ...]:
    """A file in the form that is there: safetensors for a pickle, shards with their index, half precision."""
    if name.endswith(PICKLES):
        safe = str(PurePosixPath(name).with_suffix(SAFE))
        return (safe if (folder / safe).is_file() else name,)
    return weight_files(folder, name) if name.endswith(SAFE) else (name,)
