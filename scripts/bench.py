"""Benchmarks: ``python scripts/bench.py shapes``, ``bare``, ``dymo``, ``search``, ``smc``, ``store`` and ``workers``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(
    1, str(Path(__file__).resolve().parents[1] / "tests")
)  # recorded runs are replayed as by tests

from scripts.benchmarks import bare, dymo, particles, shapes, store, workers

BENCHMARKS = {
    "shapes": (shapes, shapes.main),
    "bare": (bare, bare.main),
    "dymo": (dymo, dymo.main),
    "search": (particles, particles.search),
    "smc": (particles, particles.smc),
    "store": (store, store.main),
    "workers": (workers, workers.main),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="benchmark", required=True)
    for name, (module, run) in BENCHMARKS.items():
        assert module.__doc__ is not None
        module.add_options(commands.add_parser(name, help=(run.__doc__ or module.__doc__).splitlines()[0]))
    args = parser.parse_args()
    BENCHMARKS[args.benchmark][1](args)


if __name__ == "__main__":
    main()
