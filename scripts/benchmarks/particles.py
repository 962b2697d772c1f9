"""Search and particle filters on the shapes world: calls, overhead and memory.

Calls are counted at the modules themselves and compared with what the released programs need for the same settings.  The
overhead is what a sampler's run takes besides its calls of the models, as a share of these, in CPU time.  Memory is the peak of
a process of its own, for few and for many candidates.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from align.backbones.registry import load_folder
from align.backbones.unet import UNetBackbone
from align.commands.parser import parse
from align.config.compose import jobs_of
from align.rewards.base import Reward
from align.rewards.registry import load
from align.runner.build import assemble
from align.sampling.batching import Calls
from align.sampling.sampler import Request, Sampler
from align.semantics.sources import PromptGraphs
from align.shapes.semantics import graph

CPU = torch.device("cpu")
PROMPT = "a red circle above a blue square"


@dataclass(frozen=True)
class Case:
    """One method with its published settings.

    Attributes:
        options: of the command line.
        steps: of sampling.
        released: calls of the released program for one returned picture, by kind.
        needed: what the method needs: the released number less what is computed twice or thrown away.
        why: where the difference comes from.
    """

    options: tuple[str, ...]
    steps: int
    released: dict[str, float]
    needed: dict[str, float]
    why: str


SEARCH = {
    "svdd, M 20": Case(
        ("method=svdd", "method.search.candidates=20"),
        50,
        {"network": 50 + 980, "decoder": 981, "reward": 980},
        {"network": 1 + 980, "decoder": 981, "reward": 980},
        "the chosen candidate's prediction is the next step's: 49 network calls less",
    ),
    "dsearch, 5 particles, M 5, every step searched": Case(
        (
            "method=dsearch",
            "method.particles=5",
            "method.search.candidates=5",
            "method.search.schedule=all",
        ),
        50,
        # Particles by step: 5 while floor(5 (1/5)^(i/49)) says so, and so on; a searched step has floor(25/n) candidates.
        {},
        {},
        "",
    ),
}
SMC = {
    "fk, 4 particles": Case(
        ("method=fk", "method.particles=4"),
        100,
        {"network": 400, "decoder": 24, "reward": 24},
        {"network": 400, "decoder": 20, "reward": 20},
        "the finished pictures are weighed and ranked by one decoding, instead of the last prediction's and theirs",
    ),
    "das, 4 particles": Case(
        ("method=das", "method.particles=4", "method.tempering.gamma=0.008", "method.tempering.full_at=null"),
        100,
        {"network": 400, "network back": 400, "decoder": 404, "decoder back": 400, "reward": 404},
        {"network": 400, "network back": 400, "decoder": 404, "decoder back": 400, "reward": 404},
        "",
    ),
}


def searched(steps: int, start: int, candidates: int) -> dict[str, float]:
    """DSearch's calls by its schedules' formulas: released, every main call of the network is made again."""
    numbers = [max(1, int(start * (1 / start) ** (i / (steps - 1)) + 1e-9)) for i in range(steps - 1)]
    numbers[-1] = 1
    enters = [start, *numbers[:-1]]
    tried = sum(n * int(candidates * start / n + 1e-9) for n in enters)
    return {"tried": tried, "main": sum(enters) + 1, "start": start}


@contextmanager
def counted(backbone: UNetBackbone, reward: Reward) -> Iterator[Counter[str]]:
    """Pictures through the network (a guidance pair is one), decoder and reward, forward and back."""
    calls: Counter[str] = Counter()

    def watch(name: str, halves: int) -> Any:
        def before(module: Any, inputs: tuple[Tensor, ...]) -> None:
            number = len(inputs[0]) // halves
            calls[name] += number
            if inputs[0].requires_grad:
                hook: Callable[..., object] = inputs[0].register_hook
                hook(lambda gradient: calls.update({f"{name} back": number}))

        return before

    score = reward.score

    def scored(pictures: Tensor, *rest: Any) -> Tensor:
        calls["reward"] += len(pictures)
        return score(pictures, *rest)

    handles = [
        backbone.unet.register_forward_pre_hook(watch("network", 2)),
        backbone.vae.decoder.register_forward_pre_hook(watch("decoder", 1)),
    ]
    reward.score = scored  # type: ignore[method-assign, assignment]
    try:
        yield calls
    finally:
        del reward.score
        for handle in handles:
            handle.remove()


def sampler_of(case: Case, backbone: UNetBackbone, reward: Reward, batch: int, more: list[str]) -> Sampler:
    """What the case's configuration comes to."""
    options = [*case.options, "sampler=ddim_ancestral", f"sampler.steps={case.steps}", *more]
    config = jobs_of(parse(options))[0].config
    made = assemble(config, backbone, reward, PromptGraphs(graph).pairs, Calls(batch), CPU)
    assert isinstance(made, Sampler)
    return made


@contextmanager
def timed(backbone: UNetBackbone, reward: Reward) -> Iterator[list[float]]:
    """CPU seconds within calls of network, decoder and reward and within backward passes, summed up in the only entry."""
    spent = [0.0]

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            began = time.process_time()
            try:
                return function(*args, **more)
            finally:
                spent[0] += time.process_time() - began

        return call

    with ExitStack() as stack:
        for of, name in (
            (backbone, "_outputs"),
            (backbone, "decode"),
            (reward, "score"),
            (torch.autograd, "grad"),
        ):
            stack.enter_context(patch.object(of, name, watched(getattr(of, name))))
        yield spent


def memory(method: list[str], batch: int) -> float:
    """Peak resident megabytes of a process of its own that makes a picture."""
    command = [sys.executable, __file__, str(batch), *method]
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    told = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=root, env=environment
    ).stdout
    return float(told.split()[-1])


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", type=Path, default=Path("align/shapes/weights"))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--reward", default="shapes_pick")
    parser.add_argument("--short", type=int, default=10, help="steps of the runs that are timed")


def run(args: argparse.Namespace, cases: dict[str, Case]) -> None:
    """Counts, overhead and memory of some cases."""
    torch.set_num_threads(args.threads)
    backbone = load_folder(args.weights, CPU)
    reward = load(args.reward, device=CPU)
    for name, case in cases.items():
        released, needed = case.released, case.needed
        if not released:
            found = searched(case.steps, 5, 5)
            released = {"network": found["tried"] + found["main"], "decoder": found["tried"] + 1}
            needed = {"network": found["tried"] + found["start"], "decoder": found["tried"] + 1}
        with counted(backbone, reward) as calls:
            (one,) = sampler_of(case, backbone, reward, 1, []).sample([Request(PROMPT)])
        assert one.picture is not None
        print(
            f"{name}, {case.steps} steps: calls for a returned picture{'; ' + case.why if case.why else ''}"
        )
        for what, number in needed.items():
            told = "" if calls[what] == number else f"   EXPECTED {number}"
            print(f"  {what:<13} {calls[what]:6d}   released {released[what]:6.0f}{told}")
        short = Case(case.options, args.short, {}, {}, "")
        requests = [Request(PROMPT, seed=seed) for seed in range(args.batch)]
        shares = []
        with timed(backbone, reward) as spent:  # before it is assembled: parts keep methods of their models
            sampler = sampler_of(short, backbone, reward, args.batch, [])
            sampler.sample(requests)
            for _ in range(args.repeats):
                spent[0], began = 0.0, time.process_time()
                sampler.sample(requests)
                shares.append((time.process_time() - began) / spent[0] - 1)
        print(f"  overhead      {min(shares):6.1%} over the calls' {spent[0]:.2f} CPU seconds")


def search(args: argparse.Namespace) -> None:
    """Search: counts, overhead, and memory for 8 and for 256 candidates."""
    run(args, SEARCH)
    few, many = (
        memory(["method=svdd", f"method.search.candidates={number}", "sampler.steps=4"], args.batch)
        for number in (8, 256)
    )
    print(f"svdd, peak memory of a process: {few:.0f} MB with 8 candidates, {many:.0f} MB with 256")


def smc(args: argparse.Namespace) -> None:
    """Particle filters: counts and overhead."""
    run(args, SMC)


def _alone() -> None:
    """Make one picture and print the process's peak memory in MB."""
    import resource

    batch, *method = sys.argv[1:]
    torch.set_num_threads(1)
    backbone = load_folder(Path("align/shapes/weights"), CPU)
    case = Case(tuple(method), 4, {}, {}, "")
    sampler_of(case, backbone, load("shapes_pick", device=CPU), int(batch), []).sample([Request(PROMPT)])
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)


if __name__ == "__main__":
    _alone()
