"""Speed of the shapes world and the loop's own cost: ``python scripts/bench.py shapes``.

The overhead is a ratio within one run: the same number of bare calls of network, decoder and reward, with the
same shapes, against the whole sampler.  Runs alternate and the fastest of each counts, so a busy machine disturbs both
alike.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch

from align.backbones.base import Conditioning
from align.backbones.guider import Guider
from align.backbones.registry import load_folder
from align.processes.base import Process
from align.processes.ddim import ddim
from align.rewards.registry import load
from align.sampling.batching import Calls
from align.sampling.guidance import Guidance
from align.sampling.judge import Judge
from align.sampling.objective import Objective
from align.sampling.parts import Parts
from align.sampling.predict import Predict
from align.sampling.recurrence import Recurrence
from align.sampling.sampler import Request, Sampler
from align.semantics.sources import PromptGraphs
from align.shapes.grammar import distinct_captions
from align.shapes.semantics import graph


def fastest(calls: list[Callable[[], object]], repeats: int) -> list[float]:
    """Least seconds of each call, alternating."""
    best = [float("inf")] * len(calls)
    for _ in range(repeats + 1):
        for k, call in enumerate(calls):
            began = time.perf_counter()
            call()
            if _:
                best[k] = min(best[k], time.perf_counter() - began)
    return best


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", type=Path, default=Path("align/shapes/weights"))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--reward", default="shapes_spm")


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    device = torch.device("cpu")
    backbone = load_folder(args.weights, device)
    reward = load(args.reward, device=device)
    process = ddim(backbone.scheduler_config, args.steps, 1.0)
    prompts = [c.text() for c in distinct_captions("val", args.batch, 0, 2)]
    requests = [Request(prompt) for prompt in prompts]
    read = [backbone.encode(prompt, "") for prompt in prompts]
    conditioning = Conditioning.of(read)
    z = torch.randn(args.batch, *backbone.latent_shape())
    times = torch.full((args.batch,), 300)

    def plain(steps: Process) -> Sampler:
        parts = Parts(
            Predict(backbone, Guider(4.0), Calls(args.batch)), Judge(backbone, Calls(args.batch)), steps
        )
        return Sampler(parts, PromptGraphs(graph).pairs, device)

    # One preference gradient per step and no time travel, so that the bare calls can be counted out.
    objective = Objective(preference=1.0, semantic=0.0, semantic_until=1.0, both_until=1.0)
    guided_parts = Parts(
        Predict(backbone, Guider(4.0), Calls(args.batch)),
        Judge(backbone, Calls(args.batch), reward, objective),
        process,
        guidance=Guidance(1.0, (1.0, 1.0, 1.0)),
        recurrence=Recurrence(),
    )
    guided = Sampler(guided_parts, PromptGraphs(graph).pairs, device)

    halves = ("negative", "prompt")

    @torch.no_grad()
    def bare_plain() -> None:
        for step in process.steps:
            backbone._outputs(z, step, conditioning, 4, halves)
        backbone.decode(z)

    def bare_guided() -> None:
        for step in process.steps:
            leaf = z.detach().requires_grad_()
            other, own = backbone._outputs(leaf, step, conditioning, 4, halves)
            x0 = (other + 4 * (own - other)).detach().requires_grad_()
            picture = backbone.decode(x0)
            pixels = picture.detach().requires_grad_()
            score = reward.score(pixels, prompts, times if reward.takes_timestep else None).sum()
            (by_pixels,) = torch.autograd.grad(score, pixels)
            (by_x0,) = torch.autograd.grad(picture, x0, by_pixels)
            torch.autograd.grad(other + 4 * (own - other), leaf, by_x0)
        with torch.no_grad():
            backbone.decode(z)

    whole, bare, whole_guided, guided_bare = fastest(
        [lambda: plain(process).sample(requests), bare_plain, lambda: guided.sample(requests), bare_guided],
        args.repeats,
    )
    number = args.batch
    print(f"{torch.get_num_threads()} threads, batch {number}, {args.steps} steps, reward {args.reward}")
    print(f"plain picture          {whole / number:8.3f} s")
    print(f"guided evaluation      {whole_guided / number / args.steps * 1e3:8.1f} ms a picture")
    print(f"overhead plain         {whole / bare - 1:8.1%} over {bare / number:.3f} s of bare calls")
    print(f"overhead guided        {whole_guided / guided_bare - 1:8.1%} over {guided_bare / number:.3f} s")
