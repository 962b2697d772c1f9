"""Local search around the best finished picture: some whole samplings, then children of the best one, finished anew from a level on the way.

A child is the best clean latents with new noise of a level, z = a x + s noise, and costs the steps that are left from there; among equals
the parent stays, so the reward that is followed cannot fall.  From coarse to fine: later rounds begin later, keep more of the
picture and cost less.  The move is EvoSearch's (arXiv 2505.17618) and SDEdit's (2108.01073); the parent is a finished picture that was
judged as such, not a prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from align.sampling.host import send
from align.sampling.sampler import Sampler
from align.sampling.state import State
from align.strategies.base import Strategy, Trials


class LocalSearch(Strategy):
    """``drafts`` whole samplings, then rounds of (number of children, step at which they begin).

    Candidate 0 of a request is its plain picture, and candidate k draws all that is its own from the noise of particle k.
    """

    def __init__(self, sampler: Sampler, drafts: int, rounds: Sequence[tuple[int, int]]) -> None:
        super().__init__(sampler)
        self.drafts, self.rounds = drafts, rounds
        self.steps = sampler.parts.process.steps
        steps = len(self.steps)
        self.samplings = drafts + sum(number * (steps - first) for number, first in rounds) / steps
        self.width = max(drafts, *(number for number, _ in rounds))

    def work(self, trials: Trials) -> None:
        owners = range(len(trials.requests))
        self.make(trials, [(owner, number) for owner in owners for number in range(self.drafts)])
        known = self.drafts
        for number, first in self.rounds:
            there = [owner for owner in owners if trials.best[owner].latents is not None]
            born = [(owner, known + place) for owner in there for place in range(number)]
            if born:
                self.make(trials, born, self.children(trials, born, first), first)
            known += number

    def children(self, trials: Trials, born: Sequence[tuple[int, int]], first: int) -> State:
        """Each request's best picture at the level of step ``first``, with noise of each child's own."""
        step, device = self.steps[first], self.sampler.device
        parents = {owner: trials.best[owner].latents for owner, _ in born}
        clean = torch.stack([one for owner, _ in born if (one := parents[owner]) is not None])
        shape = tuple(clean.shape[1:])
        noise = [
            self.sampler.noise(trials.requests[owner], number).normal("again", first, 0, shape)
            for owner, number in born
        ]
        clean = send(clean, device)
        state = State.of(step.a * clean + step.s * send(torch.stack(noise), device), torch.arange(len(born)))
        return replace(state, previous_x0=clean)

    def make(
        self,
        trials: Trials,
        born: Sequence[tuple[int, int]],
        arrived: State | None = None,
        first: int = 0,
    ) -> None:
        """Make candidates, (owner, number) each, and offer them."""
        found = trials([trials.candidate(*one) for one in born], None, arrived, first)
        for row, (owner, number) in enumerate(born):
            value, scores, best = float(found.values[row]), found.scores[row], trials.best[owner]
            if best.offer(value, found.pictures[row], found.latents[row], candidate=number):
                best.scores = scores
