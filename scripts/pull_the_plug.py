"""Kill a run at random moments, let it go on, and compare what it made with an undisturbed run, byte for byte.

    python scripts/pull_the_plug.py --folder outputs/plug --kills 20 -- method=dymo prompts.limit=200
    python scripts/pull_the_plug.py --folder outputs/plug --kills 5 -- score PICTURES metrics=shapes

What follows ``--`` are arguments of ``python -m align``, of a run or of ``score``.  Each attempt is a process of its own that gets SIGKILL at a moment drawn
uniformly between its start and ``--longest`` seconds: by default until the first picture of an undisturbed run and then, of the
time from there to its end, twice the share of one kill, so that the kills spread over the whole run (of short runs half, up to
ten seconds, in which some work is done).  A run that ends before its kill is compared, and another one begins.  The exit code is 0
if everything is equal, timing aside.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

SETTINGS = ("run.gallery=false", "run.threads=1")


def content(folder: Path) -> dict[str, bytes]:
    """What a run made: its pictures by name, and its rows without the columns that tell time and memory."""
    from align.store.csvfile import read_csv

    rows = read_csv(folder / "results.csv").drop(columns=["seconds", "peak_memory_mb", "session"])
    pictures = {path.name: path.read_bytes() for path in sorted((folder / "images").iterdir())}
    return pictures | {"rows": rows.to_csv(index=False).encode("utf-8", "surrogatepass")}


@dataclass(frozen=True)
class Command:
    """A run that is started again and again.

    Attributes:
        options: of ``python -m align``, the folder aside; ``score`` is the first where pictures are scored.
    """

    options: tuple[str, ...]

    def preload(self) -> None:
        """Import and load here what every attempt needs, so that kills fall into work and not into imports."""
        from align.commands.parser import parse
        from align.config.compose import jobs_of
        from align.runner import build
        from align.runner.devices import torch_device
        from align.sampling.batching import Calls

        if self.options[0] == "score":
            from align.commands.score import read_options

            config = read_options([*self.options[1:], *SETTINGS]).config
            build.set_up_torch(config.run.threads)
            for name in config.metrics.rewards:
                build.load_reward(name, torch_device(config.run.device))
            return
        (job,) = jobs_of(parse([*self.options, *SETTINGS]))
        build.set_up_torch(job.config.run.threads)
        build.build_sampler(job.config, Calls(1))

    def attempt(self, folder: Path, seconds: float | None = None) -> bool:
        """Run, or go on, in a forked process; killed after ``seconds``.  Returns whether it came to its end.

        Raises:
            RuntimeError: it ended by itself with an exit code other than 0.
        """
        process = os.fork()
        if process == 0:
            self._run(folder)
        ends = None if seconds is None else time.monotonic() + seconds
        while True:
            found, status = os.waitpid(process, os.WNOHANG)
            if found:
                if status:
                    raise RuntimeError(
                        f"the run ended with {os.waitstatus_to_exitcode(status)}: see {folder}.log"
                    )
                return True
            if ends is not None and time.monotonic() >= ends:
                os.kill(process, signal.SIGKILL)
                _, status = os.waitpid(process, 0)
                return status == 0
            time.sleep(0.002)

    def _run(self, folder: Path) -> None:
        """In the forked process, which ends here."""
        code = 70
        try:
            log = os.open(f"{folder}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            os.dup2(log, 1)
            os.dup2(log, 2)
            from align.__main__ import main

            code = main([*self.options, *SETTINGS, f"run.folder={folder}"])
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def pull(command: Command, folder: Path, kills: int, longest: float | None, seed: int) -> list[str]:
    """Kill until there were ``kills``; returns the differences to an undisturbed run, none if all is well."""
    if folder.exists():
        raise SystemExit(f"{folder} exists: give --folder another one, or delete it")
    folder.mkdir(parents=True)
    command.preload()
    began = time.time()
    command.attempt(folder / "whole")
    whole = time.time() - began
    first = min(path.stat().st_ctime for path in (folder / "whole" / "images").iterdir()) - began
    expected = content(folder / "whole")
    longest = longest or first + max(2 * (whole - first) / kills, min((whole - first) / 2, 10))
    print(
        f"undisturbed: {whole:.1f} s, {len(expected) - 1} pictures; kills within {longest:.2f} s", flush=True
    )
    draw, differences = random.Random(seed), list[str]()
    done = run = saved = 0
    while True:
        # When all kills are done the last run ends in peace.
        before = _pictures(folder / f"run{run}")
        ended = command.attempt(folder / f"run{run}", draw.uniform(0, longest) if done < kills else None)
        if not ended:
            done += 1
            saved += _pictures(folder / f"run{run}") - before
            if not saved and done % 3 == 0:
                longest *= 2  # the machine has become slower: kills shall fall into work
        else:
            found = content(folder / f"run{run}")
            names = sorted(expected.keys() | found.keys())
            differences += [f"run{run}: {name}" for name in names if expected.get(name) != found.get(name)]
            run += 1
            if done == kills:
                print(
                    f"{done} kills in {run} runs, after {saved} pictures in all; {len(differences)} differences"
                )
                return differences


def _pictures(folder: Path) -> int:
    return sum(1 for _ in (folder / "images").glob("[!.]*"))


def main(argv: Sequence[str] | None = None) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="a new folder for the runs")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--longest", type=float, help="seconds from a start to its kill, at most")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument("--keep", action="store_true", help="leave the folder")
    parser.add_argument("options", nargs="*", help="options of a run, after --")
    args = parser.parse_args(argv)
    differences = pull(Command(tuple(args.options)), args.folder, args.kills, args.longest, args.seed)
    for line in differences:
        print(line)
    if not args.keep and not differences:
        shutil.rmtree(args.folder)
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
