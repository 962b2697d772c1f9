"""What lies in a folder of results that somebody else may have made: nothing is read outside of it, nor written through a link."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from functools import cache
from pathlib import Path, PureWindowsPath

from align.store.errors import StoreError

FILES = (".lock", "journal.jsonl", "run.json", "results.csv", "errors.log")
FOLDERS = ("images", "claims", ".alive")


def refuse_links(folder: Path) -> None:
    """Refuse with a StoreError a run folder in which a name that is written to is a link, or no file or folder at all.

    The folder itself may be one: the user named it.
    """
    for name in (*FILES, *FOLDERS):
        path = folder / name
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}; choose another run.folder") from error
        if not (stat.S_ISDIR(mode) if name in FOLDERS else stat.S_ISREG(mode)):
            what = "a symbolic link" if stat.S_ISLNK(mode) else "no file" if name in FILES else "no folder"
            raise StoreError(f"{path} is {what}: remove it, or choose another run.folder")


def pictures_in(folder: Path, names: Iterable[str]) -> list[str]:
    """The paths of pictures that a table names; empty for no name, and for what is not a file inside the folder.

    A file that is not there is a path: whoever reads it says so.
    """
    root = os.path.realpath(folder)

    @cache  # pictures are in one folder or few
    def is_inside(place: str) -> bool:
        return os.path.commonpath([root, os.path.realpath(place)]) == root

    def path_of(name: str) -> str:
        if not name or "\0" in name or os.path.isabs(name) or PureWindowsPath(name).drive or "\\" in name:
            return ""
        path = os.path.join(folder, name)
        try:
            if not is_inside(os.path.dirname(path)):
                return ""
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                mode = os.stat(path).st_mode if is_inside(path) else 0
        except FileNotFoundError:
            return path
        except (OSError, ValueError):
            return ""
        return path if stat.S_ISREG(mode) else ""

    return [path_of(str(name)) for name in names]
