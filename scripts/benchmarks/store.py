"""A folder of very many finished items: starting again, the table, the report and the page, in seconds and megabytes.

Items are committed through the store itself, with invented figures and one small picture for all, and without waiting for the
disk.  Each measurement is a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import io
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

from align.commands.parser import parse
from align.config.compose import jobs_of
from align.runner.plan import Item
from align.runner.prepare import Prepared, prepare
from align.runner.record import run_record
from align.runner.rows import make_row
from align.runner.score import CHUNK, VERDICTS
from align.store.manifest import Manifest
from align.store.measured import CHECKER, Result
from align.store.store import Store

ARMS = ("none", "best_of_n")
"""Methods that the folders pretend to be of."""
ALIGN = ("-m", "align")
START = "import align.__main__, pandas, torch"
"""What every command below pays for before it does anything."""
COMMIT = """
import sys, time
sys.path.insert(0, "")
from scripts.benchmarks.store import last_commits
print(*last_commits(sys.argv[1:]))
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--items", type=int, default=100_000, help="items in each of two folders")
    parser.add_argument("--samples", type=int, default=4, help="pictures of a prompt")
    parser.add_argument("--folder", type=Path, help="keep the folders here and use them again")


def options(root: Path, method: str, items: int, samples: int) -> list[str]:
    """The command line of one arm."""
    return [
        f"method={method}",
        "prompts=file",
        f"prompts.path={root / f'prompts-{items // samples}.txt'}",
        f"samples={samples}",
        f"run.folder={root / f'{method}-{items}'}",
        "run.threads=1",
    ]


def fabricate(root: Path, method: str, items: int, samples: int) -> None:
    """Make the finished folder of one arm, unless it is there already."""
    (root / f"prompts-{items // samples}.txt").write_text(
        "".join(f"a photo of thing number {number} beside a tree\n" for number in range(items // samples))
    )
    prepared = _prepared(options(root, method, items, samples))
    draw, picture = random.Random(method), _png()
    with patch("os.fsync"), _opened(prepared, csv_every=1e9) as store:
        for first in range(0, len(prepared.items), CHUNK):
            _commit(store, prepared, prepared.items[first : first + CHUNK], picture, draw)


def _prepared(command: Sequence[str]) -> Prepared:
    (job,) = jobs_of(parse(command))
    (prepared,) = prepare([job.config])
    return prepared


def _opened(prepared: Prepared, csv_every: float = 30.0) -> Store:
    manifest = Manifest(prepared.identity, run_record(prepared))
    return Store(Path(str(prepared.config.run.folder)), manifest, prepared.items, csv_every=csv_every)


def _commit(
    store: Store, prepared: Prepared, items: Sequence[Item], picture: bytes, draw: random.Random
) -> None:
    """Keep some pictures and then what was measured of them."""
    from align.sampling.ledger import Cost
    from align.sampling.sampler import Outcome

    results: dict[str, dict[str, Result]] = {}
    for item in items:
        figures: dict[str, int | float | str] = {
            "rounds": 0,
            "nonfinite_gradients": 0,
            "prompt_truncated": 0,
            "latent_norm": draw.random(),
        }
        outcome = Outcome(None, Cost(25, decoder_forward=1), figures, None, draw.random())
        store.commit(item, picture, make_row(prepared.config, item, outcome, 1000.0))
        found = {name: Result({name: draw.gauss(0, 1)}) for name in prepared.config.metrics.rewards}
        found[CHECKER] = Result({f"check_{name}": None for name in VERDICTS})
        results[item.key] = {metric: found[metric] for metric in prepared.metrics}
    store.measured(results, prepared.metrics)


def last_commits(command: Sequence[str]) -> tuple[float, float]:
    """Seconds of a synced commit beside all that is there, and of a new table; for a process of its own."""
    prepared = _prepared(command)
    draw, picture = random.Random(0), _png()
    with _opened(prepared, csv_every=1e9) as store:
        _commit(store, prepared, prepared.items[:1], picture, draw)  # which imports torch
        began = time.perf_counter()
        for first in (1, 1 + CHUNK):
            _commit(store, prepared, prepared.items[first : first + CHUNK], picture, draw)
        commits = (time.perf_counter() - began) / (2 * CHUNK)
        began = time.perf_counter()
        store.rebuild_csv()
        return commits, time.perf_counter() - began


def _png() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 80).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def measured(*command: str) -> tuple[float, float, str]:
    """Seconds, peak memory in MB, and output of a Python process."""
    peak = 0.0
    with tempfile.TemporaryFile("w+") as out:
        began = time.perf_counter()
        process = subprocess.Popen([sys.executable, *command], stdout=out)
        # What the system tells of an ended process counts its parent's memory before it became another program.
        while process.poll() is None:
            peak = max(peak, _peak(process.pid))
            time.sleep(0.01)
        seconds = time.perf_counter() - began
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
        out.seek(0)
        return seconds, peak, out.read()


def _peak(process: int) -> float:
    """Peak memory so far in MB; 0 for a process that has just ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM")), 0.0)


def main(args: argparse.Namespace) -> None:
    root: Path = args.folder or Path(tempfile.mkdtemp(prefix="align-store-"))
    root.mkdir(parents=True, exist_ok=True)
    try:
        for method in ARMS:
            began = time.perf_counter()
            fabricate(root, method, args.items, args.samples)
            print(f"{args.items} items of {method} made in {time.perf_counter() - began:.0f} s", flush=True)
        command = options(root, ARMS[0], args.items, args.samples)
        folders = [str(root / f"{method}-{args.items}") for method in ARMS]
        page = str(root / "page.html")
        for name, words in {
            "imports alone": ("-c", START),
            "the same command again, nothing left": (*ALIGN, *command, "run.gallery=false"),
            "the same, every picture read": (*ALIGN, *command, "run.gallery=false", "run.verify=full"),
            "report of two folders": (*ALIGN, "report", *folders, "--out", str(root / "report")),
            "page of two folders, 400 rows": (*ALIGN, "gallery", *folders, "--out", page),
        }.items():
            seconds, memory, _ = measured(*words)
            print(f"{name:40} {seconds:6.1f} s {memory:6.0f} MB", flush=True)
        _, memory, out = measured("-c", COMMIT, *command)
        commit, table = map(float, out.split()[-2:])
        print(f"{'one more commit':40} {commit * 1000:6.1f} ms")
        print(f"{'a new results.csv':40} {table:6.1f} s {memory:6.0f} MB")
    finally:
        if args.folder is None:
            shutil.rmtree(root)
