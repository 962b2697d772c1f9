"""What a GPU makes of the real commands at full size, on random weights: ``bash scripts/gpu_check.sh OUT``.

Writes pipelines of the published sizes, then runs ``align`` on them, stage by stage: guided and plain, several batches, blocks
kept, checkpointed or compiled, the guide in bfloat16 or float32.  A stage has seconds of its own, is done in a process that goes
on to the next, and costs nobody else's figures when it fails or is slow.  OUT gets ``figures.json``, ``figures.md``, and of each
backbone ``profile-NAME.txt``; all of it is there from the first stage on.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import os
import queue
import resource
import shutil
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

PROMPTS = (
    "a red circle",
    "a blue star",
    "a green cube",
    "a white cat",
    "an old ship",
    "two pears",
    "a lamp",
    "a road",
)
GUIDED = (
    "method=dymo",
    "method.recurrence.rule=none",
    "method.objective.phases.semantic_until=1",  # both losses at every step
    "method.objective.phases.both_until=0",
    "method.objective.phases.preference_until=0",
)
PLAIN = ("method=none",)
BFLOAT16 = "reward.dtype=bfloat16"


@dataclass(frozen=True)
class Stage:
    """One run of a command.

    Attributes:
        name: what the figures call it.
        backbone: sd15 or sdxl.
        options: of the command.
        pictures: how many it makes, all in one batch.
        look: what is done beside timing: count operations, profile, or compare its pictures with those of ``same``.
        same: name of an earlier stage with the same options.
        patience: how many limits it may take.
    """

    name: str
    backbone: str
    options: tuple[str, ...]
    pictures: int = 1
    look: str = ""
    same: str = ""
    patience: float = 1.0


def stages(backbone: str) -> list[Stage]:
    """Of one backbone, the most telling first; the first of a kind counts its operations, and warms up."""
    guided, checkpointed, compiled = (
        (*GUIDED, BFLOAT16),
        "backbone.checkpointing=true",
        "backbone.compile=true",
    )
    large = 8 if backbone == "sd15" else 4
    return [
        Stage("guided, counted", backbone, guided, look="count"),
        Stage("guided", backbone, guided),
        Stage("guided again", backbone, guided, look="compare", same="guided"),
        Stage("guided, profiled", backbone, guided, look="profile"),
        Stage("guided", backbone, guided, 4),
        *([Stage("guided", backbone, guided, large)] if large > 4 else []),
        Stage("guided, reward in float32", backbone, GUIDED),
        Stage("plain, counted", backbone, PLAIN, look="count"),
        *(Stage("plain", backbone, PLAIN, number) for number in (1, 4, 8)),
        Stage("guided, checkpointed", backbone, (*guided, checkpointed)),
        Stage("guided, checkpointed", backbone, (*guided, checkpointed), 8),
        Stage("guided, compiling", backbone, (*guided, compiled), patience=2.5),
        Stage("guided, compiled", backbone, (*guided, compiled)),
        Stage("plain, compiling", backbone, (*PLAIN, compiled), 8, patience=2),
        Stage("plain, compiled", backbone, (*PLAIN, compiled), 8),
    ]


def command(stage: Stage, number: int, args: argparse.Namespace) -> list[str]:
    """The command line of a stage."""
    weights, side = (
        args.work / "weights" / stage.backbone,
        args.side or {"sd15": 512, "sdxl": 1024}[stage.backbone],
    )
    return [
        *(f"backbone={stage.backbone}", f"backbone.weights={weights}", "backbone.vae=null"),
        *(f"backbone.height={side}", f"backbone.width={side}", f"backbone.dtype={args.dtype}"),
        *("metrics=none", "prompts=text", f"prompts.text=[{','.join(PROMPTS[: stage.pictures])}]"),
        *(f"run.batch_size={stage.pictures}", f"run.in_flight={stage.pictures}", "run.gallery=false"),
        *(f"run.folder={args.work / 'runs' / f'{stage.backbone}-{number}'}", f"sampler.steps={args.steps}"),
        *(f"run.device={args.device}", "semantics.source=rules"),
        *stage.options,
    ]


@contextlib.contextmanager
def looking(stage: Stage, out: Path, found: dict[str, Any]) -> Iterator[None]:
    """Count or profile what is done inside."""
    import torch

    if stage.look == "count":
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            yield
        found["tflop"] = counter.get_total_flops() / 1e12
    elif stage.look == "profile":
        cuda = torch.cuda.is_available()
        kinds = [torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(
            activities=[*kinds, torch.profiler.ProfilerActivity.CUDA] if cuda else kinds
        ) as seen:
            yield
        order = "self_cuda_time_total" if cuda else "self_cpu_time_total"
        table = seen.key_averages().table(sort_by=order, row_limit=40)
        (out / f"profile-{stage.backbone}.txt").write_text(table, encoding="utf-8")
    else:
        yield


def peak_gb() -> float:
    """Most memory held since the last call, by torch on a GPU; by the process since it began on a CPU."""
    import torch

    if not torch.cuda.is_available():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    most = torch.cuda.max_memory_allocated() / 1e9
    torch.cuda.reset_peak_memory_stats()
    return most


def do(stage: Stage, number: int, args: argparse.Namespace) -> dict[str, Any]:
    """Run one stage in this process, which keeps what it has loaded."""
    from align.__main__ import main as align

    options = command(stage, number, args)
    folder = args.work / "runs" / f"{stage.backbone}-{number}"
    found: dict[str, Any] = {}
    peak_gb()
    said = io.StringIO()
    with looking(stage, args.out, found), contextlib.redirect_stderr(said):
        code = align(options)
    found |= {"code": code, "gb": peak_gb()}
    if code != 0:
        return found | {"error": said.getvalue().strip()[-500:]}
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found["seconds"] = sum(float(row["seconds"]) for row in rows)
    found["evaluations"] = sum(int(row["network_forward"]) for row in rows)
    found["pictures_sha256"] = [_sha256(folder / row["image"]) for row in rows]
    return found


def _sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def work(args: argparse.Namespace) -> int:
    """Do the stages of one backbone from a given one on, a line of JSON for each."""
    if args.first == 0:
        write_weights(args.backbone, args)
    told = sys.stdout
    print(json.dumps({"ready": True}), file=told, flush=True)
    for number, stage in enumerate(stages(args.backbone)):
        if number < args.first:
            continue
        try:
            with contextlib.redirect_stdout(sys.stderr):
                found = do(stage, number, args)
        except Exception as error:
            traceback.print_exc()
            found = {"error": f"{type(error).__name__}: {error}"[:500]}
        print(json.dumps(found), file=told, flush=True)
    return 0


def write_weights(name: str, args: argparse.Namespace) -> None:
    """The random pipeline and reward of a backbone."""
    import torch

    from scripts import full_size

    sizes = full_size.tiny(name) if args.tiny else full_size.full(name)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = getattr(torch, args.dtype)
    torch.manual_seed(0)
    full_size.write_pipeline(args.work / "weights" / name, name, sizes, dtype, device)
    full_size.write_reward(args.work / "own", name, sizes, dtype, device)


class Worker:
    """A process that does the stages of one backbone, listened to with patience that ends."""

    def __init__(self, backbone: str, first: int, argv: Sequence[str], args: argparse.Namespace) -> None:
        environment = os.environ | {"ALIGN_CHECKPOINTS": str(args.work / "own"), "HF_HUB_OFFLINE": "1"}
        own = [sys.executable, __file__, *argv, "--backbone", backbone, "--first", str(first)]
        log = (args.out / f"log-{backbone}.txt").open("a", encoding="utf-8")
        self.process = subprocess.Popen(own, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        log.close()
        self.lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for text in self.process.stdout:
            self.lines.put(text)
        self.lines.put("")

    def answer(self, seconds: float) -> dict[str, Any] | None:
        """The next line, or what kept it away; ``None`` where the process is no more to be asked."""
        try:
            text = self.lines.get(timeout=max(0.0, seconds))
        except queue.Empty:
            self.close()
            return {"error": f"not done in {seconds:.0f} s", "lost": True}
        if not text:
            self.close()
            return {"error": f"the process ended with code {self.process.returncode}", "lost": True}
        found: dict[str, Any] = json.loads(text)
        return found

    def close(self) -> None:
        """End it, if it has not ended."""
        self.process.kill()
        self.process.wait()


def all_stages(
    backbone: str, argv: Sequence[str], args: argparse.Namespace, ends: float
) -> Iterator[dict[str, Any]]:
    """What the stages of a backbone found, each as soon as it is known."""
    worker: Worker | None = None
    for number, stage in enumerate(stages(backbone)):
        left = ends - time.monotonic()
        found: dict[str, Any] | None = None
        if left < 1:
            found = {"error": "no time was left"}
        elif worker is None:
            worker = Worker(backbone, number, argv, args)
            found = worker.answer(min(args.limit * 2, left))  # weights are written, libraries imported
            if found is not None and "ready" in found:
                found = None
        if found is None:
            assert worker is not None
            found = worker.answer(min(args.limit * stage.patience, ends - time.monotonic()))
        assert found is not None
        if found.pop("lost", False):
            worker = None
        yield asdict(stage) | found
    if worker is not None:
        worker.process.wait()


def add_rates(results: list[dict[str, Any]], peak: float | None) -> None:
    """Rates by the operations counted for one picture of the same kind, and whether pictures are equal."""
    needed = {
        (one["backbone"], one["name"].partition(",")[0]): one["tflop"] for one in results if "tflop" in one
    }
    for one in results:
        kind = (one["backbone"], one["name"].replace(" again", "").partition(",")[0])
        if "seconds" in one and kind in needed and one["look"] in ("", "compare"):
            one["tflop_per_second"] = needed[kind] * one["pictures"] / one["seconds"]
            one["share_of_peak"] = None if peak is None else one["tflop_per_second"] / peak
        if one["same"]:
            first = next(
                (
                    other
                    for other in results
                    if (other["backbone"], other["name"], other["pictures"])
                    == (one["backbone"], one["same"], one["pictures"])
                ),
                {},
            )
            one["equal"] = "pictures_sha256" in one and one["pictures_sha256"] == first.get("pictures_sha256")


def table(results: Sequence[dict[str, Any]], card: str) -> str:
    """The figures as Markdown."""
    lines = [
        f"Measured on {card}, random weights.",
        "",
        "| backbone | run | pictures | s a picture | s an evaluation | TFLOP/s | of peak | GB | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in results:
        cells = [one["backbone"], one["name"], str(one["pictures"])]
        if "seconds" in one:
            share, rate = one.get("share_of_peak"), one.get("tflop_per_second")
            cells += [
                f"{one['seconds'] / one['pictures']:.3f}",
                f"{one['seconds'] / max(1, one['evaluations']):.3f}",
                "" if rate is None else f"{rate:.1f}",
                "" if share is None else f"{share:.0%}",
                f"{one['gb']:.1f}",
                {True: "equal bytes", False: "OTHER BYTES"}.get(one.get("equal", ""), ""),
            ]
        else:
            cells += [""] * 5 + [" ".join(one.get("error", "failed").split())[-160:].replace("|", "/")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for the figures")
    parser.add_argument("--backbones", nargs="+", choices=("sd15", "sdxl"), default=["sd15", "sdxl"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--side", type=int, default=None, help="pixels; the backbone's own by default")
    parser.add_argument("--tiny", action="store_true", help="tiny networks, to try the script itself")
    parser.add_argument(
        "--limit", type=float, default=45.0, help="seconds of a stage, twice that to get ready"
    )
    parser.add_argument("--total", type=float, default=450.0, help="seconds of all")
    parser.add_argument(
        "--work", type=Path, default=None, help="folder for weights and pictures; OUT/work by default"
    )
    parser.add_argument("--backbone", default=None, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    args.out = args.out.resolve()
    args.work = (args.work or args.out / "work").resolve()
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Measure everything; 1 if nothing could be measured."""
    argv = list(sys.argv[1:] if argv is None else argv)
    args = options(argv)
    if args.backbone is not None:
        return work(args)
    import torch

    from scripts.full_size import PEAKS

    args.out.mkdir(parents=True, exist_ok=True)
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "a CPU"
    peak = next((value for part, value in PEAKS.items() if part in card), None)
    began = time.monotonic()
    results: list[dict[str, Any]] = []
    for place, backbone in enumerate(args.backbones):
        share = args.total * (place + 1) / len(args.backbones)
        for one in all_stages(backbone, argv, args, began + share):
            results.append(one)
            add_rates(results, peak)
            facts = {
                "card": card,
                "torch": torch.__version__,
                "steps": args.steps,
                "seconds": time.monotonic() - began,
            }
            (args.out / "figures.json").write_text(
                json.dumps(facts | {"results": results}, indent=1), encoding="utf-8"
            )
            (args.out / "figures.md").write_text(table(results, card), encoding="utf-8")
        shutil.rmtree(args.work, ignore_errors=True)  # room for the next one's weights
    print(table(results, card))
    return 0 if any("seconds" in one for one in results) else 1


if __name__ == "__main__":
    sys.exit(main())
