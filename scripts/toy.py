"""Every method on the problems of which everything is known: ``python scripts/toy.py``.

Writes figures and tables of ``docs/toy.md``.  What was measured is kept in ``docs/toy.json``: another call measures what is not
there yet and draws the page again; ``--afresh`` forgets it first.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from scripts.toys.measure import PROBLEMS, run
from scripts.toys.page import write

DOCS = Path(__file__).resolve().parents[1] / "docs"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=DOCS, help="of toy.md and toy.json")
    parser.add_argument("--seed", type=int, default=1, help="of all noise")
    parser.add_argument("--afresh", action="store_true", help="measure all of it again")
    options = parser.parse_args()
    torch.set_num_threads(1)
    kept = options.folder / "toy.json"
    if options.afresh:
        kept.unlink(missing_ok=True)
    write(run(kept, PROBLEMS, options.seed), options.folder)


if __name__ == "__main__":
    main()
