"""Seconds of the calls that a run makes: a few of each are made and timed, with one row, with more, and with all that a call may have."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from statistics import median

import torch
from torch import Tensor

from align.config.method import MethodConfig
from align.processes.base import Step
from align.runner.dry_run import Price
from align.runner.failures import free_memory, out_of_memory
from align.sampling.batching import Calls
from align.sampling.judge import Judge
from align.sampling.ledger import Ledger
from align.sampling.parts import Parts
from align.sampling.predict import Predict
from align.sampling.sampler import Population, Request, Sampler, Samples
from align.sampling.values import PosteriorMean, Regressed
from align.strategies.base import Strategy

STEPS = 3
"""Of the process, evenly spread, that plain sampling is timed with: the network, and all else that a step takes."""
ENOUGH = 1.0
"""Seconds after which calls that are timed together are not timed again."""
TIMES = 2
ROUNDS = 3
"""Of all calls, so that a while in which the machine is slower or faster is not a kind's own."""
Clock = Callable[[], float]


@torch.no_grad()
def measured(
    made: Samples, method: MethodConfig, request: Request, clock: Clock = time.perf_counter
) -> dict[str, Price]:
    """Prices of what a dry run tells of; ``request`` is any of the run's."""
    sampler = made.sampler if isinstance(made, Strategy) else made
    assert isinstance(sampler, Sampler)
    timer = _Timer(sampler.device, clock)
    sampler.encode([replace(request, prompt="a picture")])
    encoding = timer.once(lambda: sampler.encode([request]))
    most = sampler.parts.predict.calls.most
    sizes = [rows for rows in (1, 2, 4, 8, 16, 32, 64, 128) if rows < most] + [most]
    found: dict[int, list[dict[str, float]]] = {}
    for _ in range(ROUNDS):
        for rows in sizes:
            try:
                found.setdefault(rows, []).append(_seconds(sampler, method, request, timer, rows))
            except Exception as error:
                if not out_of_memory(error) or rows == sizes[0]:
                    raise
            if not found[rows]:  # as the run will find out itself
                del found[rows]
                free_memory()
                sizes = list(found)
                break
    named = {
        what: Price(tuple(found), tuple(median(one[what] for one in times) for times in found.values()))
        for what in found[1][0]
    }
    return {"encode": Price(seconds=(encoding,)), **named}


def _seconds(
    sampler: Sampler, method: MethodConfig, request: Request, timer: _Timer, rows: int
) -> dict[str, float]:
    """What a call of each kind takes that has so many rows, by the ledger's names."""
    parts, device = sampler.parts, sampler.device
    backbone, guider, correction = parts.predict.backbone, parts.predict.guider, parts.predict.correction
    judge = replace(parts.judge, calls=Calls(rows))
    plain = Sampler(
        Parts(
            Predict(backbone, guider, Calls(rows), correction),
            Judge(backbone, Calls(rows)),
            replace(parts.process, steps=_spread(parts.process.steps)),
        ),
        sampler.pairs,
        device,
        Population(rows),
    )
    read, ledger = plain.encode([request]), Ledger(1)
    plain.run([request], read, ledger)
    z = torch.randn(rows, *backbone.latent_shape()).to(device)
    pictures = judge.decode(z, [0] * rows)

    def scoring(judge: Judge) -> Callable[[Tensor], Tensor]:
        return lambda shown: judge.score(shown, [request.prompt] * rows, [0] * rows)

    followed, scores = "reward", scoring(judge)
    there: dict[str, Callable[[], object]] = {
        "network_forward": lambda: plain.run([request], read),
        "decoder_forward": lambda: judge.decode(z, [0] * rows),
    }
    if judge.reward is not None:
        there["reward_forward"] = lambda: scores(pictures)
    if judge.guide is not None:
        followed, guides = "guide", scoring(replace(judge, reward=judge.guide))
        there["guide_forward"] = lambda: guides(pictures)
    value, words = judge.value, read.conditioning.take(torch.zeros(rows, dtype=torch.long, device=device))
    if isinstance(value, PosteriorMean) and not value.of_prediction:
        small = value.decode
        there["small_decoder_forward"] = lambda: small(z)
    if isinstance(value, Regressed):
        network, half = value.regressor, torch.full((rows,), 0.5, device=device)
        there["value_forward"] = lambda: network(z.float(), half, words.prompt.float())
    found = timer.in_turn(there)
    found["network_forward"] /= ledger.costs[0].network_forward / rows
    if method.walks_back:
        step = parts.process.steps[len(parts.process.steps) // 2]
        maps = method.objective.attention_half if method.guided and method.objective.semantic > 0 else None

        def predict(latents: Tensor) -> Tensor:
            made = backbone.predict(latents, step, words, guider, maps, correction)
            return made.x0 if made.attention is None else made.x0.sum() + made.attention.sum()

        found["network_backward"] = timer.back(predict, z, found["network_forward"])
    if method.follows_noise or method.reward_needs_gradient:
        found["decoder_backward"] = timer.back(backbone.decode, z, found["decoder_forward"])
    if method.reward_needs_gradient:
        follows = scores if judge.guide is None else guides
        found[f"{followed}_backward"] = timer.back(follows, pictures, found[f"{followed}_forward"])
    return found


def _spread(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Some of them, from the first on."""
    number = min(len(steps), STEPS)
    return tuple(steps[k * len(steps) // number] for k in range(number))


class _Timer:
    """Seconds of a call, which the device has finished."""

    def __init__(self, device: torch.device, clock: Clock) -> None:
        self.device, self._clock = device, clock

    def in_turn(self, calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
        """The median of several of each, after a first one that sets things up.

        One after the other, as a run makes them: a call that follows itself finds its weights still in the processor's cache.
        """
        took: dict[str, list[float]] = {name: [] for name in calls}
        for call in calls.values():
            call()
        for _ in range(TIMES):
            for name, call in calls.items():
                took[name].append(self.once(call))
            if sum(map(sum, took.values())) >= ENOUGH:
                break
        return {name: median(each) for name, each in took.items()}

    def once(self, call: Callable[[], object]) -> float:
        self._wait()
        began = self._clock()
        call()
        self._wait()
        return self._clock() - began

    def back(self, function: Callable[[Tensor], Tensor], x: Tensor, there: float) -> float:
        """Of the way back alone, where the way ``there`` takes so many."""

        @torch.enable_grad()
        def both() -> None:
            leaf = x.detach().requires_grad_()
            torch.autograd.grad(function(leaf).float().sum(), leaf)

        return max(0.0, self.in_turn({"back": both})["back"] - there)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()
