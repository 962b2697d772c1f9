"""A checkpoint by name: embedded, a local folder, or a repository of the hub in its local cache.

``shapes`` is embedded; ``FOLDER`` any path; ``owner/name``, ``owner/name@revision``, ``owner/name:sub/folder`` and
``owner/name@revision:sub/folder`` are on the hub.  A folder that exists goes before a repository of the same name.
Nothing here touches the network: what is not in the cache is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

EMBEDDED = {"shapes": Path(__file__).parent.parent / "shapes" / "weights"}
"""Weights that come with the package, by name."""

_HUB = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+?))?(:(?P<folder>[\w./-]+))?"
)


@dataclass(frozen=True)
class HubReference:
    """A repository of the hub.

    Attributes:
        repo: ``owner/name``.
        revision: commit, branch or tag; ``None`` for the default branch.
        folder: sub-folder that is meant, empty for all.
    """

    repo: str
    revision: str | None = None
    folder: str = ""


def hub_reference(text: str) -> HubReference | None:
    """A reference to the hub; ``None`` for an embedded name or a local folder.

    A path that exists is local; so is all that does not look like ``owner/name``.
    """
    if text in EMBEDDED or Path(text).expanduser().exists():
        return None
    found = _HUB.fullmatch(text)
    if found is None:
        return None
    return HubReference(found["repo"], found["revision"], found["folder"] or "")


def folder_of(text: str) -> Path:
    """The local folder that a reference means, whether it is there or not."""
    if text in EMBEDDED:
        return EMBEDDED[text]
    reference = hub_reference(text)
    if reference is None:
        return Path(text).expanduser()
    return snapshot(reference.repo, reference.revision) / reference.folder


def snapshot(repo: str, revision: str | None = None) -> Path:
    """The folder of a repository's files in the hub's cache (``HF_HUB_CACHE``, ``HF_HOME``), there or not."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"
    name = revision or "main"
    pointer = folder / "refs" / name
    commit = pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else name
    return folder / "snapshots" / commit


def hub_names(reference: HubReference, parts: Iterable[str]) -> tuple[str, ...]:
    """Paths within the repository of files that are named relative to the reference's folder."""
    return tuple(f"{reference.folder}/{part}" if reference.folder else part for part in parts)


def fetch_command(reference: HubReference, files: tuple[str, ...]) -> str:
    """The command that brings files (paths within the repository) into the cache."""
    at = f" --revision {reference.revision}" if reference.revision else ""
    return f"hf download {reference.repo} {' '.join(files)}{at}"
