"""Fetching checkpoints and data sets: from the hub into its cache, and single files by address; hashes are checked.

Nothing but ``python -m align doctor --fetch`` calls this; runs fetch nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from urllib.error import URLError
from urllib.request import Request, urlopen
from uuid import uuid4

from align.checkpoints.hashes import read_hash
from align.checkpoints.layout import INDEX, PICKLES, SAFE, shards, weight_names
from align.checkpoints.reference import HubReference, gate, is_pattern
from align.errors import WrongWeights

CHUNK = 1 << 20
TIMEOUT = 60.0
"""Seconds without an answer."""


class FetchError(Exception):
    """Something cannot be fetched; the message is one line for the user."""


@dataclass(frozen=True)
class UrlFile:
    """A file outside the hub: its address, the 64 hex digits of its sha256, and where it goes."""

    url: str
    sha256: str
    target: Path


def check_access(reference: HubReference) -> None:
    """Ask the hub whether files of a repository may be fetched; offline nothing is asked. Raises FetchError: gated, not found."""
    from huggingface_hub import HfApi
    from huggingface_hub.constants import is_offline_mode
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    if is_offline_mode():
        return
    try:
        HfApi().auth_check(reference.repo, repo_type=reference.kind)
    except (HTTPError, OSError) as error:
        raise FetchError(_why(reference.repo, error)) from error


def fetch_hub(reference: HubReference, names: Sequence[str]) -> list[Path]:
    """Bring files of a repository, named by paths within it or patterns, into the hub's cache, if they are not there.

    Weights may be there in shards: their index comes first and says which files follow.  Raises FetchError: offline, gated, not
    found, or a file's hash is not the one that the hub states.
    """
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import HTTPError, RevisionResolutionError  # type: ignore[attr-defined]

    _refuse_offline(reference.repo)
    try:
        info = HfApi().dataset_info if reference.kind == "dataset" else HfApi().model_info
        facts = info(reference.repo, revision=reference.revision, files_metadata=True, timeout=TIMEOUT)
        known = {file.rfilename: file for file in facts.siblings or []}
        fitting = {name: _fitting(name, known) for name in names}
        if absent := [name for name, files in fitting.items() if not files]:
            pickles = sorted(one for one in known if one.endswith(PICKLES))
            but = f"; it has {', '.join(pickles[:3])}, pickles, which are not read" if pickles else ""
            raise FetchError(f"{reference.repo} does not hold {', '.join(absent)}{but}")
        found: list[Path] = []
        wanted = [file for files in fitting.values() for file in files]
        for name in wanted:  # it grows by the shards of an index
            path = Path(
                hf_hub_download(reference.repo, name, revision=reference.revision, repo_type=reference.kind)
            )
            lfs = known[name].lfs
            if lfs is not None:
                _check_cached(path, lfs.sha256, f"{name} of {reference.repo}")
            found.append(path)
            wanted += _named(path, name, known, wanted)
        return found
    except (HTTPError, OSError, RevisionResolutionError) as error:
        raise FetchError(_why(reference.repo, error)) from error


def fetch_url(url: str, sha256: str, target: Path) -> Path:
    """Bring one file to its place, whole and with the right hash, or not at all. Raises FetchError.

    Of a hash of which only the beginning is published, ``sha256`` is that.
    """
    if target.is_file() and read_hash(target).startswith(sha256):
        return target
    _refuse_offline(url)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid4().hex}.part")
    try:
        digest = hashlib.sha256()
        request = Request(url, headers={"User-Agent": "align"})
        with urlopen(request, timeout=TIMEOUT) as answer, temporary.open("wb") as file:
            while block := answer.read(CHUNK):
                digest.update(block)
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        if not digest.hexdigest().startswith(sha256):
            raise FetchError(f"{url} has the hash {digest.hexdigest()}, not {sha256}: nothing was kept")
        os.replace(temporary, target)
    except (URLError, OSError, ValueError) as error:
        raise FetchError(f"{url} cannot be fetched: {_first_line(error)}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return target


def _fitting(name: str, known: Collection[str]) -> list[str]:
    """The files of a repository that a name or pattern stands for, sorted; of weights in another form the one to begin with."""
    if is_pattern(name) or name in known or not name.endswith(SAFE):
        return sorted(one for one in known if one == name or (is_pattern(name) and fnmatchcase(one, name)))
    return [one for one in weight_names(name) if one in known][:1]


def _named(path: Path, name: str, known: Collection[str], wanted: Collection[str]) -> list[str]:
    """The shards of a repository that a file, if it is an index, names beside it. Raises FetchError."""
    if INDEX not in name:
        return []
    try:
        beside = [str(PurePosixPath(name).with_name(shard)) for shard in shards(path)]
    except WrongWeights as error:
        raise FetchError(str(error)) from error
    if absent := [one for one in beside if one not in known]:
        raise FetchError(f"{name} names {', '.join(absent[:3])}, which the repository does not hold")
    return [one for one in beside if one not in wanted]


def _check_cached(path: Path, sha256: str, what: str) -> None:
    """Drop a file of the cache, and what it links to, that does not hold what it should."""
    if (found := read_hash(path)) == sha256:
        return
    blob = path.resolve()
    path.unlink()
    blob.unlink(missing_ok=True)
    raise FetchError(f"{what} has the hash {found}, not {sha256}: nothing was kept")


def _refuse_offline(what: str) -> None:
    from huggingface_hub.constants import is_offline_mode

    if is_offline_mode():
        raise FetchError(f"{what} is not fetched: HF_HUB_OFFLINE is set, unset it to fetch")


def _why(repo: str, error: Exception) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return f"{repo} is gated: {gate(repo)}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"{repo} is not on the hub, or is private: give HF_TOKEN, or run `hf auth login`, if it is yours"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo} has no such revision"
    if isinstance(error, errors.HfHubHTTPError) and error.response.status_code in (401, 403):
        return f"{repo} is refused ({error.response.status_code}): {gate(repo)}"
    local = isinstance(error, errors.LocalEntryNotFoundError)
    if isinstance(error, errors.EntryNotFoundError) and not local:
        return f"{repo} lacks a file: {_first_line(error)}"
    return f"{repo} cannot be fetched: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
