"""Calls, CPU time and memory of DyMO on the tiny recorded runs: ``python scripts/bench.py dymo``.

The recorded draws are fed in, so each step takes as many rounds as the released program took.  Calls are counted at the
modules themselves, once from noise to picture; what the released program needs for the same is printed beside.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from align.sampling.ledger import Ledger
from align.sampling.loop import run, start
from tests.golden.replay import CPU, SLIM, Trace

RELEASED = {
    "trace_sd_full": {"network": 32, "network back": 22, "decoder": 24, "decoder back": 17, "scored": 242},
    "trace_sdxl_full": {"network": 31, "network back": 15, "decoder": 17, "decoder back": 10, "scored": 165},
}
"""Calls of the released program for the same runs."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument(
        "--golden", type=Path, default=SLIM, help="folder of recorded runs (default: those of the tests)"
    )


@contextmanager
def counted(trace: Any) -> Iterator[Counter[str]]:
    """Calls of the network and of the decoder, and pictures that the reward sees, forward and back."""
    calls: Counter[str] = Counter()

    def watch(name: str, rows: bool) -> Any:
        def before(module: Any, inputs: tuple[Tensor, ...]) -> None:
            number = len(inputs[0]) if rows else 1
            calls[name] += number
            if inputs[0].requires_grad:
                hook: Callable[..., object] = inputs[0].register_hook
                hook(lambda gradient: calls.update({f"{name} back": number}))

        return before

    image_tower = trace.reward.model.vision_model.embeddings.patch_embedding
    handles = [
        trace.backbone.unet.register_forward_pre_hook(watch("network", False)),
        trace.backbone.vae.decoder.register_forward_pre_hook(watch("decoder", False)),
        image_tower.register_forward_pre_hook(watch("scored", True)),
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def once(trace: Any) -> None:
    """From the recorded noise to the picture."""
    draws = lambda *_: trace.draws  # noqa: E731
    state = start(draws, 1, 1, trace.backbone.latent_shape(), CPU)
    state = run(trace.parts, state, trace.pictures, draws, Ledger(1))
    with torch.no_grad():
        trace.backbone.decode(state.z)


def megabytes() -> float:
    """Peak resident memory of the process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    for name, released in RELEASED.items():
        recorded: Callable[[Path, str], Any] = Trace
        trace = recorded(args.golden, name)
        with counted(trace) as calls:
            before = megabytes()
            once(trace)
            grown = megabytes() - before
        seconds = []
        for _ in range(args.repeats):
            began = time.process_time()
            once(trace)
            seconds.append(time.process_time() - began)
        print(f"{name}: {trace.number} steps, {len(trace.facts['evaluations'])} evaluations, one thread")
        for what, number in released.items():
            print(f"  {what:<13} {calls[what]:5d}   released {number:5d}")
        print(f"  CPU           {min(seconds):7.2f} s, best of {args.repeats}")
        print(f"  peak memory   {megabytes():5.0f} MB, {grown:.0f} MB more than before the first run")
