"""What a picture costs, before there is one: the method itself on a model that computes nothing.

The sampler is the run's own, with its calls, its strategy and its ledger, so a new method needs nothing here.  Backbone and reward are
still, and tell of every call how many rows it has.  The reward never changes: whoever goes on until something better comes goes on
as long as it may, so what is found is the most that such a method costs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from align.backbones.base import Conditioning, Encoded, Halves, Prediction
from align.backbones.guider import Guider
from align.config.schema import Config
from align.processes.base import Step
from align.rewards.base import Reward
from align.runner.build import assemble
from align.runner.estimate import network_evaluations
from align.sampling.batching import Calls
from align.sampling.ledger import COUNTS, Cost
from align.sampling.sampler import Request, Sampler, Samples
from align.sampling.values import Asked, PosteriorMean, Value
from align.semantics.tokens import TokenPairs
from align.strategies.base import Strategy

Told = Callable[[str, float], None]
"""Is told of each call: what it is by the ledger's names (and ``encode``), and its rows."""
LATENTS = (4, 8, 8)
STEEP = 1e6
"""Slope of the reward, with which steps that repeat by the gradient's norm do so as often as they may."""
HOST = torch.device("cpu")


@dataclass(frozen=True)
class Price:
    """Seconds of a call by its rows, between and beyond some that were measured; with one of them the same for any."""

    rows: tuple[float, ...] = (1.0,)
    seconds: tuple[float, ...] = (0.0,)

    def __call__(self, rows: float) -> float:
        last = len(self.rows) - 1
        if last == 0:
            return self.seconds[0]
        k = min(max(bisect_right(self.rows, rows) - 1, 0), last - 1)
        share = (rows - self.rows[k]) / (self.rows[k + 1] - self.rows[k])
        return max(0.0, self.seconds[k] + share * (self.seconds[k + 1] - self.seconds[k]))


def calls_of_a_picture(config: Config, schedule: Mapping[str, Any]) -> Cost:
    """What the ledger charges a picture; the mean of several where it depends on draws."""
    least, most = network_evaluations(config)
    made = _run(config, schedule, Calls(8), lambda *_: None, 1 if least == most else 8)
    total = sum((cost for cost in made), Cost())
    return Cost(*(getattr(total, name) / len(made) for name in COUNTS))


def seconds_of_a_picture(
    config: Config, schedule: Mapping[str, Any], calls: Calls, prices: Mapping[str, Price], groups: int
) -> float:
    """What a picture takes by the prices of all its calls, beside those that it is made with in a plan of ``groups``."""
    total = 0.0

    def told(what: str, rows: float) -> None:
        nonlocal total
        total += prices[what](rows) if what in prices else 0.0

    pictures = len(_run(config, schedule, calls, told, groups))
    return total / pictures


def _run(config: Config, schedule: Mapping[str, Any], calls: Calls, told: Told, groups: int) -> list[Cost]:
    """Costs of the pictures of some groups, at most those that are worked on together."""
    method = config.method
    sampler = _sampler(config, schedule, calls, told)
    width = max(method.particles, sampler.width if isinstance(sampler, Strategy) else 1)
    together = min(groups, 32, max(1, 4 * calls.most // width))
    requests = [
        Request(f"prompt {k}", sample=place) for k in range(together) for place in range(method.returned)
    ]
    return [outcome.cost for outcome in sampler.sample(requests)]


def _sampler(config: Config, schedule: Mapping[str, Any], calls: Calls, told: Told) -> Samples:
    method = config.method
    values = method.value.estimate if method.values_states else "posterior"
    if values in ("network", "small_decoder"):  # whose files nobody has to read
        config = replace(config, method=replace(method, value=replace(method.value, estimate="posterior")))
    reward = StillReward(told) if method.uses_reward else None
    guide = None if config.guide is None else StillReward(told, "guide")
    pairs = TokenPairs(((1, 2),))
    made = assemble(config, StillBackbone(schedule, told), reward, lambda *_: pairs, calls, HOST, guide=guide)
    if values in ("network", "small_decoder") and isinstance(made, Sampler):
        small = PosteriorMean(lambda z0: _decoded(z0, told, "small_decoder"), own_decoder=False)
        value: Value = StillNetwork(told) if values == "network" else small
        made.parts = replace(made.parts, judge=replace(made.parts.judge, value=value))
    return made


class _Watched(torch.autograd.Function):
    """Rows as they are, told of on the way there and on the way back."""

    @staticmethod
    def forward(context: Any, x: Tensor, told: Told, what: str, share: float) -> Tensor:
        context.told, context.what, context.rows = told, what, share * len(x)
        told(f"{what}_forward", context.rows)
        return x.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        context.told(f"{context.what}_backward", context.rows)
        return gradient, None, None, None


def _watched(x: Tensor, told: Told, what: str, share: float = 1.0) -> Tensor:
    found: Tensor = _Watched.apply(x, told, what, share)
    return found


def _decoded(z0: Tensor, told: Told, what: str) -> Tensor:
    return 0.5 + 0.01 * _watched(z0, told, what)[:, :3]


class StillBackbone:
    """Three tokens a prompt, and latents that stay what they are."""

    def __init__(self, schedule: Mapping[str, Any], told: Told) -> None:
        self.scheduler_config = dict(schedule)
        self._told = told
        self._read: set[tuple[str, str]] = set()

    def latent_shape(self) -> tuple[int, ...]:
        return LATENTS

    def encode(self, prompt: str, negative: str) -> Encoded:
        if (prompt, negative) not in self._read:
            self._told("encode", 1)
        self._read.add((prompt, negative))
        text = torch.zeros(3, 2)
        return Encoded(text, text, ((0, 0), (0, 1), (1, 2)), 3, False)

    def predict(
        self,
        z: Tensor,
        step: Step,
        conditioning: Conditioning,
        guider: Guider,
        attention: Halves | None = None,
        correction: bool = True,
    ) -> Prediction:
        if calls := guider.calls(step, correction or attention == "both"):
            z = _watched(z, self._told, "network", calls)
        maps = None
        if attention is not None:
            where = z.mean(1)[..., None]
            maps = torch.softmax(where * z.new_tensor([0.1, 0.2, 0.3]), dim=-1)
        return Prediction(0.5 * z, 0.5 * z, 0.5 * z, maps)

    def decode(self, z0: Tensor) -> Tensor:
        return _decoded(z0, self._told, "decoder")

    def describe(self, z0: Tensor) -> list[dict[str, float]]:
        return [{} for _ in z0]


class StillReward(Reward):
    """The same for every picture, and steep."""

    name = "still"

    def __init__(self, told: Told, what: str = "reward") -> None:
        self._told, self._what, self.fingerprint = told, what, {}

    def score(self, pictures: Tensor, prompts: Sequence[str], step: Tensor | None = None) -> Tensor:
        shown = STEEP * _watched(pictures, self._told, self._what).flatten(1).mean(dim=1)
        return shown - shown.detach() + 1


class StillNetwork:
    """A value network's answer."""

    of_prediction, of_latents = False, True

    def __init__(self, told: Told) -> None:
        self._told = told

    def costs(self, step: Step) -> Mapping[str, float]:
        return {"value_forward": 1}

    def __call__(self, asked: Asked) -> Tensor:
        self._told("value_forward", len(asked.z))
        return torch.zeros(len(asked.z))
