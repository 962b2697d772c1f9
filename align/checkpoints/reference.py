"""A checkpoint or data set by name: embedded, a local folder, or a repository of the hub in its local cache.

``shapes`` is embedded; ``FOLDER`` any path; ``owner/name``, ``owner/name@revision``, ``owner/name:sub/folder`` and
``owner/name@revision:sub/folder`` are on the hub.  A folder that exists goes before a repository of the same name.
Nothing here touches the network: what is not in the cache is missing.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_SHAPES = Path(__file__).parent.parent / "shapes" / "weights"
TRAINED = {
    f"shapes_{way}": _SHAPES / "lora" / way / "pytorch_lora_weights.safetensors"
    for way in ("spo", "dpo", "kto", "alignprop")
}
"""Low-rank updates of ``shapes``, each with a card beside it that says what its training cost."""
TRAINING_COST = "training_cost.json"
"""The file with that cost: passes through the network and seconds on one core."""
EMBEDDED = {"shapes": _SHAPES, "shapes_flow": _SHAPES / "flow", "shapes_turbo": _SHAPES / "turbo", **TRAINED}
"""Weights that come with the package, by name."""

Kind = Literal["model", "dataset"]
"""What a repository of the hub holds; the two have names of their own there."""

_HUB = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+?))?(:(?P<folder>[\w./-]+))?"
)


@dataclass(frozen=True)
class HubReference:
    """A repository ``owner/name`` of the hub, at a commit, branch or tag, and a sub-folder, empty for all."""

    repo: str
    revision: str | None = None
    folder: str = ""
    kind: Kind = "model"


def hub_reference(text: str, kind: Kind = "model") -> HubReference | None:
    """A reference to the hub; ``None`` for an embedded name or a local folder.

    A path that exists is local; so is all that does not look like ``owner/name``, or is named as a file of weights.
    """
    if text in EMBEDDED or Path(text).expanduser().exists():
        return None
    found = _HUB.fullmatch(text)
    if found is None or found["repo"].endswith(".safetensors"):
        return None
    return HubReference(found["repo"], found["revision"], found["folder"] or "", kind)


def folder_of(text: str, kind: Kind = "model") -> Path:
    """The local folder that a reference means, whether it is there or not."""
    if text in EMBEDDED:
        return EMBEDDED[text]
    reference = hub_reference(text, kind)
    if reference is None:
        return Path(text).expanduser()
    return snapshot(reference.repo, reference.revision, kind) / reference.folder


def snapshot(repo: str, revision: str | None = None, kind: Kind = "model") -> Path:
    """The folder of a repository's files in the hub's cache (``HF_HUB_CACHE``, ``HF_HOME``), there or not."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE) / f"{kind}s--{repo.replace('/', '--')}"
    name = revision or "main"
    pointer = folder / "refs" / name
    commit = pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else name
    return folder / "snapshots" / commit


def hub_names(reference: HubReference, parts: Iterable[str]) -> tuple[str, ...]:
    """Paths within the repository of files that are named relative to the reference's folder."""
    return tuple(f"{reference.folder}/{part}" if reference.folder else part for part in parts)


def is_pattern(name: str) -> bool:
    """Whether a file's name is a pattern such as ``data/test-*.parquet``."""
    return "*" in name


def fetch_command(reference: HubReference, files: tuple[str, ...]) -> str:
    """The command that brings files (paths within the repository, or patterns) into the cache."""
    words = ["hf", "download", reference.repo]
    # The client takes names as they are, and does not look at --include where it is given names.
    patterns = any(map(is_pattern, files))
    words += [word for name in files for word in (["--include"] if patterns else []) + [name]]
    words += ["--repo-type", reference.kind] if reference.kind != "model" else []
    words += ["--revision", reference.revision] if reference.revision else []
    return shlex.join(words)


def gate(repo: str) -> str:
    """What opens a repository whose terms have to be accepted."""
    return f"accept its terms at https://huggingface.co/{repo}, then give your token in HF_TOKEN, or run `hf auth login`"
