"""The folders of a command's runs, looked at before the first one starts."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from align.config.errors import ConfigError
from align.runner.prepare import Prepared
from align.store.errors import StoreError
from align.store.manifest import Manifest, check_identity, first_difference, read_run


def refuse_sharing(ready: Sequence[Prepared], *, together: bool = False) -> None:
    """Refuse runs of one command that would spoil each other's folder; more prompts or seeds of one run may share it.

    ``together``: they work at the same time.  Raises ConfigError, naming the folder, and what differs.
    """
    first: dict[str, Prepared] = {}
    for one in ready:
        options = one.config.run
        other = first.setdefault(os.path.realpath(_folder(one)), one)
        if other is one:
            continue
        told = f"several runs of this command go into one folder, {options.folder}"
        earlier, later = (Manifest(prepared.identity).plain_identity() for prepared in (other, one))
        difference = first_difference(earlier, later)
        if difference is not None and not options.extend:
            key, was, wanted = difference
            raise ConfigError(
                f"{told}, and differ in {key} ({was} and {wanted}): leave run.folder out, so that each has its own, "
                "or give run.extend=true to keep all in one"
            )
        if together and not options.shared and one.config.runner.kind != "ray":
            raise ConfigError(f"{told}, at the same time: leave run.folder out, or give run.shared=true")


def check_folder(prepared: Prepared) -> None:
    """Refuse a folder that a run could not use, untouched; whether it is in use shows when the run starts. Raises
    ConfigError.
    """
    folder, options = _folder(prepared), prepared.config.run
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        raise ConfigError(f"run.folder={folder}: {there} is not a folder: give another one")
    if not os.access(there, os.W_OK | os.X_OK):
        fixed = os.statvfs(there).f_flag & os.ST_RDONLY
        reason = os.strerror(errno.EROFS if fixed else errno.EACCES)
        raise ConfigError(f"run.folder={folder}: {there} cannot be written to ({reason}): give another one")
    try:
        if (
            os.path.isdir(folder / "images")
            and any((folder / "images").iterdir())
            and (existing := read_run(folder)) is not None
        ):
            check_identity(folder, existing, Manifest(prepared.identity), extend=options.extend)
    except StoreError as error:
        raise ConfigError(str(error)) from error


def _folder(prepared: Prepared) -> Path:
    folder = str(prepared.config.run.folder)
    if "\0" in folder:
        raise ConfigError("run.folder holds a NUL character: give another name")
    return Path(folder)
