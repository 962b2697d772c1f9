"""Benchmarks: ``python scripts/bench.py shapes`` and ``python scripts/bench.py dymo``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.benchmarks import dymo, shapes

BENCHMARKS = {"shapes": shapes, "dymo": dymo}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="benchmark", required=True)
    for name, module in BENCHMARKS.items():
        assert module.__doc__ is not None
        module.add_options(commands.add_parser(name, help=module.__doc__.splitlines()[0]))
    args = parser.parse_args()
    BENCHMARKS[args.benchmark].main(args)


if __name__ == "__main__":
    main()
