"""One run by more and more Ray workers of one thread: pictures a second, as multiples of one local process in the same call.

Each run is the command itself, of which only the number of workers differs.  The rate is the slope of finished pictures over
time in the middle of a run, where all workers are at work; the seconds of a whole command have its start in them, in which
a cluster is made and each worker loads its networks.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from align.store.csvfile import read_csv
from scripts.benchmarks.store import ALIGN, measured

MIDDLE = (0.2, 0.85)
"""The part of the pictures, in order of time, whose rate is told: before it workers start, after it they run out of work."""


def add_options(parser: argparse.ArgumentParser) -> None:
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--pictures", type=int, default=400)
    parser.add_argument("--method", default="none")
    parser.add_argument("--workers", type=int, nargs="+", default=doublings(cores), help="numbers of workers")


def doublings(cores: int) -> list[int]:
    """1, 2, 4 and so on, and the number of cores itself."""
    return sorted({*(2**power for power in range(cores.bit_length()) if 2**power <= cores), cores})


def rate(times: Sequence[float]) -> float:
    """Pictures a second in the middle of a run whose pictures were finished at ``times``, seconds in any order.

    The slope of a line through all points of the middle, because pictures come in batches.
    """
    begin, end = (round(share * len(times)) for share in MIDDLE)
    return float(np.polyfit(np.sort(times)[begin:end], np.arange(begin, end), 1)[0])


def timed(root: Path, name: str, pictures: int, options: Sequence[str]) -> tuple[float, float]:
    """Seconds of a command, and its pictures a second."""
    folder = root / name
    seconds, _, _ = measured(
        *ALIGN,
        "prompts=shapes_pair",
        "prompts.limit=100",
        f"samples={-(-pictures // 100)}",
        f"run.folder={folder}",
        "run.gallery=false",
        "metrics=none",
        "run.threads=1",
        *options,
    )
    images = read_csv(folder / "results.csv")["image"]
    return seconds, rate([(folder / str(image)).stat().st_mtime for image in images])


def main(args: argparse.Namespace) -> None:
    """Pictures a second of one run by 1, 2, 4 and more Ray workers."""
    print(f"{'':12} {'in all':>9} {'pictures a second':>18} {'times local':>12} {'a worker':>9}")
    with tempfile.TemporaryDirectory(prefix="align-workers-") as root:
        arms = {"local": (1, ["runner=local"])}
        arms |= {
            f"ray, {number}": (number, ["runner=ray", f"runner.workers={number}"]) for number in args.workers
        }
        alone = 0.0
        for name, (number, options) in arms.items():
            folder = name.replace(", ", "-")
            seconds, fast = timed(Path(root), folder, args.pictures, [f"method={args.method}", *options])
            alone = alone or fast
            print(
                f"{name:12} {seconds:7.0f} s {fast:18.2f} {fast / alone:12.2f} {fast / alone / number:9.2f}",
                flush=True,
            )
