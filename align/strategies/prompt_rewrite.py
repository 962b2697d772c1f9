"""The user's prompt in the words of a language model: beside the user's own, or in place of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from align.sampling.sampler import Outcome, Request, Sampler
from align.strategies.base import Strategy, Trials
from align.strategies.prompt_search import offer, reworded

Rewrite = Callable[[str], str]
"""From a prompt to the rewritten one."""


class PromptRewrite(Strategy):
    """Draws both prompts from one noise and keeps the better picture by the reward for the user's prompt."""

    samplings = width = 2

    def __init__(self, sampler: Sampler, rewrite: Rewrite) -> None:
        super().__init__(sampler)
        self.rewrite = rewrite

    def work(self, trials: Trials) -> None:
        candidates = []
        for owner, request in enumerate(trials.requests):
            prompts = dict.fromkeys((request.prompt, self.rewrite(request.prompt)))
            candidates += [(owner, reworded(request, prompt)) for prompt in prompts]
        offer(trials, candidates)

    def probe(self, request: Request, picture: Tensor) -> None:
        """As ``Samples.probe``."""
        super().probe(request, picture)
        self.sampler.probe(reworded(request, self.rewrite(request.prompt)), picture)


class Rewritten:
    """A sampler that draws the rewritten prompts alone, for which no reward is needed."""

    def __init__(self, sampler: Sampler, rewrite: Rewrite) -> None:
        self.sampler = sampler
        self.rewrite = rewrite

    def sample(
        self, requests: Sequence[Request], on_step: Callable[[float], None] | None = None
    ) -> list[Outcome]:
        """As ``Samples.sample``."""
        drawn = [reworded(request, self.rewrite(request.prompt)) for request in requests]
        outcomes = self.sampler.sample(drawn, on_step)
        for request, outcome in zip(drawn, outcomes, strict=True):
            outcome.info |= {"drawn_prompt": request.prompt, "drawn_negative": request.negative}
        return outcomes

    def probe(self, request: Request, picture: Tensor) -> None:
        """As ``Samples.probe``."""
        self.sampler.probe(reworded(request, self.rewrite(request.prompt)), picture)
