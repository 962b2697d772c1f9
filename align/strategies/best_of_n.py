"""Best of N: sample N independent pictures, return the one the reward likes best.

The strongest simple baseline: it costs N plain samples and cannot distort a picture.  Candidate 0 is the picture
that plain sampling makes from the same seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from align.rewards.base import Reward
from align.sampling.batching import chunks
from align.sampling.ledger import Cost
from align.sampling.sampler import Outcome, Request, Sampler


class BestOfN:
    """Args: sampler: of the candidates; reward: what ranks them; candidates: N, at least 1."""

    def __init__(self, sampler: Sampler, reward: Reward, candidates: int) -> None:
        if candidates < 1:
            raise ValueError(f"candidates must be at least 1, not {candidates}")
        self.sampler = sampler
        self.reward = reward
        self.candidates = candidates

    def sample(
        self, requests: Sequence[Request], on_step: Callable[[float], None] | None = None
    ) -> list[Outcome]:
        """See :meth:`align.sampling.sampler.Sampler.sample`.

        A candidate whose picture or score is not finite is never chosen; if all of a request's are, it fails.
        """
        rounds: list[list[Outcome]] = []
        scores: list[list[float]] = []
        for k in range(self.candidates):
            share = (lambda done, k=k: on_step((k + done) / self.candidates)) if on_step else None
            outcomes = self.sampler.sample(requests, share, candidate=k)
            rounds.append(outcomes)
            scores.append(self._scores(outcomes, [request.prompt for request in requests]))
        return [
            self._choose([outcomes[k] for outcomes in rounds], [row[k] for row in scores])
            for k in range(len(requests))
        ]

    @torch.no_grad()
    def _scores(self, outcomes: list[Outcome], prompts: list[str]) -> list[float]:
        """The reward of each finished picture at the end of the process; NaN for a failed one."""
        scores = [math.nan] * len(outcomes)
        there = [k for k, outcome in enumerate(outcomes) if outcome.picture is not None]
        for chunk in chunks(len(there), self.sampler.batch_size):
            rows = [there[int(k)] for k in chunk.rows]
            found = [outcomes[k].picture for k in rows]
            pictures = torch.stack([p for p in found if p is not None]).to(self.sampler.device)
            times = torch.zeros(len(rows), dtype=torch.long, device=self.sampler.device)
            values = self.reward.score(
                pictures, [prompts[k] for k in rows], times if self.reward.takes_timestep else None
            )
            for k, value in zip(rows[: chunk.real], values[: chunk.real].tolist(), strict=True):
                scores[k] = value
                outcomes[k].cost.reward_forward += 1
        return scores

    def _choose(self, outcomes: list[Outcome], scores: list[float]) -> Outcome:
        cost = Cost()
        for outcome in outcomes:
            cost = cost + outcome.cost
        seconds = sum(outcome.seconds for outcome in outcomes)
        finite = [k for k, score in enumerate(scores) if math.isfinite(score)]
        if not finite:
            return Outcome(None, cost, outcomes[0].info, "no candidate has a finite reward", seconds)
        best = max(finite, key=lambda k: (scores[k], -k))
        info = {**outcomes[best].info, "info_candidate": best}
        return Outcome(outcomes[best].picture, cost, info, None, seconds)
