"""AlignProp (Prabhudesai et al., arXiv 2310.03739): the reward's gradient by the weights, back through the last steps of a sampling.

The first steps are made without a graph; of the others each keeps what goes in and is made once more on the way back.  How many these
are is drawn anew in each round, so that early steps learn too and late ones do not learn to draw the reward alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from align.sampling.host import send
from align.sampling.noise import NoiseStream
from align.sampling.predict import Differentiable
from align.sampling.sampler import Request, Sampler
from align.sampling.state import per_row
from align.training.base import Example
from align.training.ranks import Ranks
from align.training.rounds import Rounds


@dataclass(frozen=True)
class Picture(Example):
    """A picture to be made.

    Attributes:
        request: of what, from which noise.
        last: steps that are walked back.
    """

    request: Request
    last: int


class AlignProp:
    """The lesson.

    Args:
        sampler: makes the pictures and has the reward as its judge.
        prompts: what those of a round are of.
        last: fewest and most steps that are walked back.
        seed: of the noise and of how many steps are walked back.
    """

    def __init__(self, sampler: Sampler, prompts: Rounds[str], last: tuple[int, int], seed: int) -> None:
        predict = sampler.parts.predict
        walking = Differentiable(predict.backbone, predict.guider, predict.calls, predict.correction)
        self.sampler = copy(sampler)
        self.sampler.parts = replace(sampler.parts, predict=walking)
        self.prompts, self.last, self.seed = prompts, last, seed

    def collect(self, round_: int, ranks: Ranks) -> Sequence[Picture]:
        """What the round's pictures will be of: they are made when they are learned from."""
        low, high = self.last
        share = float(NoiseStream(self.seed, "alignprop", 0).uniform("last", round_, 0, (1,)))
        last = min(low + int(share * (high - low + 1)), len(self.sampler.parts.process.steps))
        epoch, prompts = self.prompts(round_)
        return [
            Picture(f"{epoch}\x1f{prompt}", Request(prompt, seed=self.seed, sample=epoch), last)
            for prompt in ranks.share(prompts)
        ]

    def loss(self, examples: Sequence[Picture]) -> tuple[Tensor, dict[str, Tensor]]:
        """Minus the mean reward; a picture whose reward is not finite teaches nothing.

        The gradient is staged: reward to picture, decoder to clean latents, and from there the loop takes it to the weights.
        """
        latents = self.walk([one.request for one in examples], examples[0].last)
        prompts = [one.request.prompt for one in examples]
        _, values, by_latents = self.sampler.parts.judge.differentiate(latents, prompts, range(len(prompts)))
        finite = torch.isfinite(values) & torch.isfinite(by_latents).flatten(1).all(dim=1)
        number = finite.sum().clamp(min=1)
        by_latents = torch.where(per_row(finite, by_latents), by_latents, 0) / number
        reward = torch.where(finite, values, 0).sum() / number
        pull = (by_latents.detach() * latents).sum()
        loss = pull - pull.detach() - reward.detach()
        return loss, {"reward": reward.detach(), "finite": finite.float().mean()}

    def walk(self, requests: Sequence[Request], last: int) -> Tensor:
        """Clean latents (P, C, h, w) whose graph reaches through the ``last`` steps."""
        parts = self.sampler.parts
        early, first = copy(self.sampler), len(parts.process.steps) - last
        early.parts = replace(parts, process=replace(parts.process, steps=parts.process.steps[:first]))
        with torch.no_grad():
            pictures = self.sampler.encode(requests)
            state = early.run(requests, pictures)
        # Whose gradient nobody reads; with it each call knows that it will be walked back.
        state = replace(state, z=send(state.z, self.sampler.device).detach().requires_grad_())
        with torch.enable_grad():
            return self.sampler.run(requests, pictures, arrived=state, first=first).z
