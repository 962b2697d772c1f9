"""What reward a noisy state can expect: v(z_t), an estimate of the reward of the picture that will come of it.

Search ranks candidates by it and particle filters weigh by it (soft values of SVDD, arXiv 2408.08252).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from align.backbones.base import Backbone, Conditioning
from align.backbones.guider import Guider
from align.processes.base import Process, Step, kernel
from align.sampling.noise import Draws
from align.sampling.schedules import ahead
from align.sampling.value_network import ValueNetwork


@dataclass(frozen=True)
class Asked:
    """P particles whose values are asked for.

    Attributes:
        z: noisy latents (P, ...).
        x0, eps: their predicted clean latents and noise; anything if the value is of latents alone.
        score: pictures (P, 3, H, W) in [0, 1], each for its particle's own prompt, to their rewards (P,) at a timestep, 0 for what
            is finished.
    """

    z: Tensor
    x0: Tensor
    eps: Tensor
    conditioning: Conditioning
    step: Step
    draws: Draws
    score: Callable[[Tensor, int], Tensor]


class Value(Protocol):
    """An estimate, and what it costs."""

    def costs(self, step: Step) -> Mapping[str, float]:
        """What one row is charged beyond the network's own call, by the ledger's names."""

    @property
    def of_prediction(self) -> bool:
        """Whether it is the score of the decoded x0, which a preference loss computes anyway."""

    @property
    def of_latents(self) -> bool:
        """Whether it reads noisy latents alone, so that a candidate's value needs no prediction."""

    def __call__(self, asked: Asked) -> Tensor:
        """(P,) float32 values, larger is better."""


class PosteriorMean:
    """r(D(E[x0 | z_t])): the reward of the one-step prediction (SVDD-PM, DSearch, FK steering, DAS).

    ``decode`` takes clean latents to pictures: the backbone's own decoder, or a smaller one.
    """

    of_latents = False

    def __init__(self, decode: Callable[[Tensor], Tensor], *, own_decoder: bool = True) -> None:
        self.decode = decode
        self.of_prediction = own_decoder

    def costs(self, step: Step) -> Mapping[str, float]:
        return {"decoder_forward": 1, "reward_forward": 1}

    def __call__(self, asked: Asked) -> Tensor:
        return asked.score(self.decode(asked.x0).clamp(0, 1), asked.step.timestep)


@dataclass(frozen=True)
class Looks:
    """The mean reward of several predictions, the first and those after noising it again.

    Each further look of M = ``looks``, at least 1, draws z' ~ q(z_t | x0) = N(a x0, s^2 I) and predicts once more, so the
    pictures vary as the posterior does where one posterior mean is a blur.
    """

    backbone: Backbone
    guider: Guider
    looks: int
    of_prediction: bool = False
    of_latents: bool = False

    def costs(self, step: Step) -> Mapping[str, float]:
        pictures = dict.fromkeys(("decoder_forward", "reward_forward"), self.looks)
        return {"network_forward": (self.looks - 1) * self.guider.calls(step), **pictures}

    def __call__(self, asked: Asked) -> Tensor:
        step = asked.step
        total = asked.score(self.backbone.decode(asked.x0).clamp(0, 1), step.timestep)
        for look in range(1, self.looks):
            noise = asked.draws.normal(f"look {look}")
            seen = step.a * asked.x0 + step.s * noise
            again = self.backbone.predict(seen, step, asked.conditioning, self.guider, correction=False)
            total = total + asked.score(self.backbone.decode(again.x0).clamp(0, 1), step.timestep)
        return total / self.looks


@dataclass(frozen=True)
class Lookahead:
    """The reward of a deterministic completion in few steps: the picture that comes of a state if no noise is drawn any more.

    Of k = ``steps`` evaluations the first is the state's own; the others are where ``ahead`` puts them on the process's grid, and
    the last goes to the process's end.  With all steps and eta 0 it is the reward of the picture that will be finished; with 1 it
    is the posterior mean's.
    """

    backbone: Backbone
    guider: Guider
    process: Process
    steps: int
    of_latents: bool = False

    @property
    def of_prediction(self) -> bool:
        return self.steps == 1

    def further(self, step: Step) -> list[Step]:
        """The steps that are evaluated beyond the state's own."""
        steps = self.process.steps
        return [steps[index] for index in ahead(step.index, len(steps), self.steps)[1:]]

    def costs(self, step: Step) -> Mapping[str, float]:
        more = sum(self.guider.calls(later) for later in self.further(step))
        return {"network_forward": more, "decoder_forward": 1, "reward_forward": 1}

    def __call__(self, asked: Asked) -> Tensor:
        if self.steps == 1:
            return PosteriorMean(self.backbone.decode)(asked)
        x0, eps, last = asked.x0, asked.eps, self.process.steps[-1]
        for later in self.further(asked.step):
            z = later.a * x0 + later.s * eps
            found = self.backbone.predict(z, later, asked.conditioning, self.guider, correction=False)
            x0, eps = found.x0, found.eps
        z = kernel(x0, eps, replace(last, std=0.0)).mean
        return asked.score(self.backbone.decode(z).clamp(0, 1), 0)


class Regressed:
    """A value network's answer on the noisy latents: nothing is predicted, decoded or scored (SVDD-MC, DSearch-MC).

    ``weights`` are those of each reward in the sum, by name.

    Raises:
        ValueError: the network was not trained for one of them.
    """

    of_prediction, of_latents = False, True

    def __init__(self, regressor: ValueNetwork, weights: Mapping[str, float]) -> None:
        shape = regressor.shape
        if unknown := sorted(weights.keys() - set(shape.rewards)):
            raise ValueError(
                f"the value network was trained for {', '.join(shape.rewards)}, not {', '.join(unknown)}"
            )
        self.regressor = regressor
        by_reward = [weights.get(name, 0.0) for name in shape.rewards]
        # E[sum w r] = sum w E[r], and the network answers in deviations from each mean.
        self.factors = torch.tensor(
            [w * d for w, d in zip(by_reward, shape.deviation, strict=True)], dtype=torch.float32
        )
        self.constant = sum(w * m for w, m in zip(by_reward, shape.mean, strict=True))

    def costs(self, step: Step) -> Mapping[str, float]:
        return {"value_forward": 1}

    def __call__(self, asked: Asked) -> Tensor:
        fraction = torch.full((len(asked.z),), asked.step.fraction, device=asked.z.device)
        found: Tensor = self.regressor(asked.z.float(), fraction, asked.conditioning.prompt.float())
        return found @ self.factors.to(asked.z.device) + self.constant
