"""Pictures of a run in the folders that GenEval's own program reads: OUT/00000/metadata.jsonl, OUT/00000/samples/00000.png.

    python scripts/export_geneval.py outputs/my-run OUT

The run's prompts have to say what they ask for, as ``prompts=geneval`` does.  Pictures are copied byte by byte.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from align.pictures import PictureError, saved_picture
from align.rewards.metadata import metadata_of
from align.store.columns import tags_in
from align.store.errors import StoreError
from align.store.index import rows_of
from align.store.inside import pictures_in
from align.store.pictures import png_bytes


class CannotExport(Exception):
    """The message is one line."""


def export(run: Path, out: Path) -> int:
    """Write the folders of a run's prompts; returns the number of pictures. Raises CannotExport, OSError."""
    if out.exists() and any(out.iterdir()):
        raise CannotExport(f"{out} is not empty: give a folder that is not there")
    try:
        rows = [row for row in rows_of(run) if row["image"]]
    except StoreError as error:
        raise CannotExport(str(error)) from error
    prompts: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        prompts.setdefault(row["prompt"], []).append(row)
    if not rows:
        raise CannotExport(f"{run} holds no pictures")
    for number, (prompt, own) in enumerate(prompts.items()):
        metadata = metadata_of(tags_in(own[0]))
        if "include" not in metadata:
            raise CannotExport(f"{prompt!r:.60} does not say what it asks for: draw with prompts=geneval")
        folder = out / f"{number:05}"
        (folder / "samples").mkdir(parents=True)
        (folder / "metadata.jsonl").write_text(json.dumps({**metadata, "prompt": prompt}), encoding="utf-8")
        own.sort(key=lambda row: (row["seed"], row["sample"]))
        for sample, (row, path) in enumerate(
            zip(own, pictures_in(run, [row["image"] for row in own]), strict=True)
        ):
            target = folder / "samples" / f"{sample:05}.png"
            if not path:
                raise CannotExport(f"{row['image']} is not there: the command that made it makes it again")
            if row["image"].endswith(".png"):
                shutil.copyfile(path, target)
            else:
                target.write_bytes(png_bytes(saved_picture(path)[1]))
    return len(rows)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("out", type=Path, help="folder to be made")
    found = parser.parse_args()
    try:
        print(f"{export(found.run, found.out)} pictures in {found.out}")
    except (CannotExport, PictureError, OSError) as error:
        print(f"export_geneval: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
