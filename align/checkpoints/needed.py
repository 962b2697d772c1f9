"""Files that something needs: what is missing, the command that brings it, fingerprints.  Imports no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from align.checkpoints.fetch import UrlFile
from align.checkpoints.hashes import file_hash
from align.checkpoints.layout import GATED, PICKLES, SAFE
from align.checkpoints.reference import HubReference, fetch_command, gate, hub_names, snapshot
from align.checkpoints.shipped import check_shipped

_READ = (SAFE, ".json", ".jinja", ".txt", ".model", *PICKLES, ".jsonl", ".csv", ".tsv", ".parquet", ".py")
"""Files that decide what a model or a user's reward computes, or which prompts there are; a model card does not."""


@dataclass(frozen=True)
class Needed:
    """Files that something needs, and the exact command that brings them."""

    what: str
    """Whose they are, such as "reward shapes_pick"."""
    folder: Path
    parts: tuple[str, ...]
    """Files and sub-folders of ``folder``."""
    mend: str
    hub: HubReference | None = None
    """The repository, and the folder within it, that the parts are of; ``None`` if they are not on the hub."""
    urls: tuple[UrlFile, ...] = ()
    """Files that come from elsewhere on the net, as they are."""
    about: str = ""
    """Size and licence, for people."""

    @property
    def paths(self) -> list[Path]:
        return [self.folder / part for part in self.parts]

    def missing(self) -> list[str]:
        """Parts that are not there, or are empty folders."""
        pairs = zip(self.parts, self.paths, strict=True)
        return [part for part, path in pairs if not (path.is_file() or any(path.glob("*")))]

    def files(self) -> list[Path]:
        """Those that decide the values, sorted."""
        found = [path for part in self.paths for path in (part, *part.rglob("*"))]
        return sorted(path for path in found if path.suffix in _READ and path.is_file())

    def fingerprint(self) -> str:
        """sha256 over the names and hashes of the files; the folder's place has no part in it.

        Raises WrongWeights: a file that comes with the package is not what it was.
        """
        digest = hashlib.sha256()
        for path in self.files():
            found = file_hash(path)
            check_shipped(path, found)
            digest.update(f"{path.relative_to(self.folder).as_posix()} {found}\n".encode())
        return digest.hexdigest()

    @property
    def revision(self) -> str | None:
        """The commit of the hub's cache that the files are of; ``None`` for files of another place."""
        folder = self.folder
        for _ in PurePosixPath(self.hub.folder).parts if self.hub else ():
            folder = folder.parent
        return folder.name if folder.parent.name == "snapshots" else None

    @property
    def source(self) -> str | None:
        """Repository and commit of the hub's cache, for the record; ``None`` for what is not from there."""
        return None if self.hub is None or self.revision is None else f"{self.hub.repo}@{self.revision}"


def hub_needed(what: str, hub: HubReference, parts: tuple[str, ...], shards: bool = False) -> Needed:
    """Files of a repository of the hub; the command names only those that are missing.

    With ``shards``, weights of which there is nothing yet may be there in shards, so the command says a pattern for them.
    """
    folder = snapshot(hub.repo, hub.revision, hub.kind) / hub.folder
    needed = Needed(what, folder, parts, "", hub)
    names = hub_names(hub, needed.missing() or list(parts))
    if shards:
        names = tuple(f"{name.removesuffix(SAFE)}*" if _whole(name) else name for name in names)
    return replace(needed, mend=fetch_command(hub, names))


def _whole(name: str) -> bool:
    """Whether a name is of weights in one file, rather than of a shard."""
    return name.endswith(f"model{SAFE}")


def joint_fingerprint(needed: Sequence[Needed]) -> str:
    """One hash for a pipeline and what stands in for parts of it, each named by its role, the last word of ``what``."""
    if len(needed) == 1:
        return needed[0].fingerprint()
    roles = ["pipeline", *(one.what.rpartition(" ")[2] for one in needed[1:])]
    lines = [f"{role} {one.fingerprint()}\n" for role, one in zip(roles, needed, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def missing_text(needed: Iterable[Needed]) -> str:
    """What is missing and what mends it, for people; empty if nothing is."""
    gone = [(one, missing) for one in needed if (missing := one.missing())]
    if not gone:
        return ""
    lines = []
    for one, missing in gone:
        if one.hub is not None and len(missing) == len(one.parts) > 1:
            lines.append(f"  {one.what}: nothing of {one.hub.repo} in {one.folder}")
        else:
            lines.append(f"  {one.what}: {', '.join(missing)} in {one.folder}")
    mends = [f"  {mend}" for mend in mending(one for one, _ in gone)]
    gated = {one.hub.repo for one, _ in gone if one.hub is not None and one.hub.repo in GATED}
    mends = [*(f"  {repo} is gated: {gate(repo)}" for repo in sorted(gated)), *mends]
    if any(one.hub is not None or one.urls for one, _ in gone):
        mends.append(
            "  or all that can be fetched: python -m align doctor --fetch, with the options of this command"
            " (for a table: this command with --fetch)"
        )
    return "\n".join(["align: files are missing", *lines, "to mend it:", *mends])


def mending(missing: Iterable[Needed]) -> list[str]:
    """The commands that bring what is missing, without those that another one, with the same options, contains."""
    words = {one.mend: set(one.mend.split()) for one in missing}

    def contained(mine: set[str]) -> bool:
        more = [other - mine for other in words.values() if mine < other]
        return any(not any(word.startswith("--") for word in names) for names in more)

    return [command for command, mine in words.items() if not contained(mine)]
