"""Methods against the calls of models that they cannot do without: ``python scripts/bench.py bare``.

A picture is made in turn by a method and by bare calls: its texts are read, then the rows of network, decoder and reward that
the method needs at each step, forward and back, in as few and as even calls as a step allows, with nothing done between them.  CPU time; the
fraction printed is the median over pairs.  It holds all that is not such a call: the loop, noise, padding, selection.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from align.backbones.base import Backbone, Conditioning
from align.backbones.guider import Guider
from align.commands.parser import parse
from align.config.compose import jobs_of
from align.config.schema import Config
from align.rewards.base import Reward
from align.runner.build import build_sampler, load_reward
from align.runner.calls import calls_of
from align.sampling.batching import Calls
from align.sampling.sampler import Request, Sampler
from align.sampling.schedules import populations, searched_width
from scripts.benchmarks.particles import CPU, PROMPT

BEST = 8
"""Rows of the fastest calls, for each row."""


def cases(steps: int) -> Iterator[tuple[str, list[str], list[tuple[int, str]]]]:
    """Name, options and passes: rows and what they go through, ``plain``, ``valued`` or ``guided``."""
    yield "none", ["method=none"], [(1, "plain")] * steps
    for tried in (2, 4, 5, 8, 12, 20):
        passes = [(1, "plain"), *[(tried, "valued")] * (steps - 1)]
        yield f"svdd, M {tried}", ["method=svdd", f"method.search.candidates={tried}"], passes
    wide = ["method.search.schedule=all", "method.search.candidates=5", "method.particles=5"]
    yield "dsearch, 5 of 5", ["method=dsearch", *wide], [(5, "plain"), *_searched(steps, 5, 5)]
    for number in (1, 2, 4, 8, 12):
        yield f"das, {number}", ["method=das", f"method.particles={number}"], [(number, "guided")] * steps


def _searched(steps: int, start: int, candidates: int) -> list[tuple[int, str]]:
    """DSearch's candidates at each of its steps: its particles by the schedule, and as many as the budget allows them."""
    entered = populations("exponential", steps, start, 1)
    numbers = [start, *entered[: steps - 2]]
    return [(n * searched_width(candidates, 1.0, start, n), "valued") for n in numbers]


def bare(
    backbone: Backbone, reward: Reward, sampler: Sampler, scale: float, passes: list[tuple[int, str]]
) -> Callable[[], None]:
    """The calls of some passes, and those of one finished picture."""
    (step, *_) = sampler.parts.process.steps
    z = torch.randn(BEST, *backbone.latent_shape())

    def call(read: Conditioning, rows: int, through: str) -> None:
        some = z[:rows].clone().requires_grad_(through == "guided")
        with torch.set_grad_enabled(through == "guided"):
            x0 = backbone.predict(
                some, step, read.take(torch.zeros(rows, dtype=torch.long)), Guider(scale, embedded=scale)
            ).x0
            if through != "plain":
                leaf = x0.detach().requires_grad_(through == "guided")
                worth = reward.score(backbone.decode(leaf).clamp(0, 1), [PROMPT] * rows, None)
                if through == "guided":
                    (slope,) = torch.autograd.grad(worth.sum(), leaf)
                    torch.autograd.grad(x0, some, slope)

    def once() -> None:
        read = Conditioning.of([backbone.encode(PROMPT, "")])
        for rows, through in passes:
            for part in torch.arange(rows).tensor_split(-(-rows // BEST)):
                call(read, len(part), through)
        with torch.no_grad():
            backbone.decode(z[:1])

    return once


def rows_called(network: torch.nn.Module, make: Callable[[], object]) -> int:
    """Rows that the network sees, padding included; a guidance pair is one."""
    seen = [0]

    def watch(
        module: torch.nn.Module, given: tuple[torch.Tensor, ...], named: dict[str, torch.Tensor]
    ) -> None:
        seen[0] += len(given[0] if given else named["hidden_states"]) // 2

    handle = network.register_forward_pre_hook(watch, with_kwargs=True)
    try:
        make()
    finally:
        handle.remove()
    return seen[0]


def config_of(options: list[str], steps: int, backbone: str) -> Config:
    """Of one prompt of the shapes world."""
    sampler = "flow_ancestral" if backbone == "shapes_flow" else "ddim_ancestral"
    words = [
        *options,
        f"backbone={backbone}",
        f"sampler={sampler}",
        f"sampler.steps={steps}",
        "prompts.limit=1",
    ]
    return jobs_of(parse(words))[0].config


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backbone", choices=("shapes", "shapes_flow"), default="shapes")
    parser.add_argument("--batch", type=int, help="rows of a call (default: what a run of one picture has)")
    parser.add_argument("--reward", default="shapes_pick")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--only", default="", help="cases whose names begin so")


def main(args: argparse.Namespace) -> None:
    """Methods against their bare calls, in pairs."""
    torch.set_num_threads(1)
    if args.batch is None:
        from align.runner.build import set_up_torch

        set_up_torch(1)
    for name, options, passes in cases(args.steps):
        if not name.startswith(args.only):
            continue
        config, request = (
            config_of([*options, f"reward={args.reward}"], args.steps, args.backbone),
            [Request(PROMPT)],
        )
        sampler = build_sampler(config, Calls(args.batch) if args.batch else calls_of(config, request))
        assert isinstance(sampler, Sampler)
        backbone: Any = sampler.parts.predict.backbone

        def made(sampler: Sampler = sampler, request: list[Request] = request) -> None:
            sampler.sample(request)

        needs = bare(backbone, load_reward(args.reward, CPU), sampler, config.sampler.guidance_scale, passes)
        needed, seen = sum(rows for rows, _ in passes), rows_called(backbone.network, made)
        needs()
        ratios, took = [], []
        for _ in range(args.pairs):
            spent = []
            for each in (needs, made):
                began = time.process_time()
                each()
                spent.append(time.process_time() - began)
            ratios.append(spent[1] / spent[0])
            took.append(spent[1])
        over = statistics.median(ratios) - 1
        print(
            f"{name:<16} {seen:4d} network rows, {needed:4d} needed; {min(took):6.2f} CPU s, {over:+6.1%} over bare calls",
            flush=True,
        )
