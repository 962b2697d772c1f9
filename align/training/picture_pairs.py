"""Data sets of pictures in pairs, as Pick-a-Pic has them: two pictures, a prompt, and which one was preferred.

A table with the columns ``caption``, ``jpg_0``, ``jpg_1`` and ``label_0`` (1: the first is preferred, 0: the second, 0.5: neither, which
is left out): .csv, .tsv, .json, .jsonl with the pictures' files, beside the table if their paths are relative, or .parquet with the
files or their bytes; or a folder of such .parquet files.  Pictures are read and encoded when they are learned from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from align.config.errors import ConfigError
from align.pictures import PictureError, read_picture
from align.runner.row_files import read_rows
from align.training.pairs import Pair

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURES = ("jpg_0", "jpg_1")
COLUMNS = ("caption", *PICTURES, "label_0")
PARQUET = (".parquet", ".pq")


@dataclass(frozen=True)
class Place:
    """A row: what it says, and where its pictures are.

    Attributes:
        first: whether the first picture is the preferred one.
        files: of the pictures; of a .parquet file ``group`` and ``row`` say where they are.
    """

    table: Path
    name: str
    prompt: str
    first: bool
    files: tuple[Path, ...] = ()
    group: int = 0
    row: int = 0


class PicturePairs:
    """Pairs of a table or folder.

    Args:
        path: see above.
        encode: some pictures to clean latents (k, C, h, w) on the CPU.

    Raises:
        ConfigError: it cannot be read, lacks a column, or no picture was preferred.
    """

    def __init__(self, path: Path, encode: Callable[[Sequence[Image]], Tensor]) -> None:
        self.encode = encode
        tables = (
            sorted(one for ending in PARQUET for one in path.glob(f"*{ending}")) if path.is_dir() else [path]
        )
        if not tables:
            raise ConfigError(
                f"training.pairs.path={path} holds no .parquet files: name a table, or a folder of them"
            )
        self.places = [place for table in tables for place in _places(table)]
        if not self.places:
            raise ConfigError(
                f"training.pairs.path={path}: label_0 prefers neither picture in every row: give others"
            )

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> Pair:
        place = self.places[number]
        try:
            images = [read_picture(one) for one in _sources(place)]
        except PictureError as error:
            raise ConfigError(f"{place.name}: {error}") from None
        first, second = self.encode(images)
        chosen, rejected = (first, second) if place.first else (second, first)
        return Pair(f"{place.name}\x1f{place.prompt}", place.prompt, chosen, rejected)


def _places(table: Path) -> list[Place]:
    """The rows of a table in which one picture is preferred."""
    if table.suffix.lower() in PARQUET:
        return _parquet_places(table)
    found = []
    for name, row in read_rows(table):
        _check_columns(name, row)
        files = tuple(table.parent / str(row[column]) for column in PICTURES)
        if (first := _preferred(row["label_0"], name)) is not None:
            found.append(Place(table, name, str(row["caption"]), first, files))
    return found


def _check_columns(name: str, there: Any) -> None:
    if lost := [column for column in COLUMNS if column not in there]:
        raise ConfigError(f"{name} has no {', '.join(lost)}: pairs have the columns {', '.join(COLUMNS)}")


def _preferred(label: Any, name: str) -> bool | None:
    """Whether the first picture is, or ``None`` for a tie."""
    try:
        value = float(label)
    except (TypeError, ValueError):
        value = -1.0
    if value not in (0.0, 0.5, 1.0):
        raise ConfigError(f"{name}: label_0 is {label!r}: give 1 if the first picture is preferred, 0 or 0.5")
    return None if value == 0.5 else value == 1.0


def _parquet(table: Path) -> Any:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise ConfigError(f"{table} is read with pyarrow, which is not here: pip install pyarrow") from None
    try:
        return parquet.ParquetFile(table)
    except (ArrowException, OSError) as error:
        raise ConfigError(
            f"{table} cannot be read: {str(error).splitlines()[0]}; give another file"
        ) from None


def _parquet_places(table: Path) -> list[Place]:
    found = []
    with _parquet(table) as file:
        _check_columns(str(table), file.schema_arrow.names)
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group, columns=["caption", "label_0"]).to_pylist()
            for number, row in enumerate(rows):
                name = f"{table.name}, row {number + 1} of group {group + 1}"
                if (first := _preferred(row["label_0"], name)) is not None:
                    found.append(Place(table, name, str(row["caption"]), first, (), group, number))
    return found


def _sources(place: Place) -> list[Path | bytes]:
    if place.files:
        return list(place.files)
    row = _group(place.table, place.group)[place.row]
    cells = [row[column] for column in PICTURES]
    # As data sets save pictures: bytes, or an object with them.
    cells = [one.get("bytes") or one.get("path") if isinstance(one, dict) else one for one in cells]
    return [one if isinstance(one, bytes) else place.table.parent / str(one) for one in cells]


@lru_cache(maxsize=2)
def _group(table: Path, group: int) -> list[dict[str, Any]]:
    with _parquet(table) as file:
        rows: list[dict[str, Any]] = file.read_row_group(group, columns=list(PICTURES)).to_pylist()
    return rows
