"""Drafts and refinement: few steps from several start noises, a choice among what they come to, and the chosen ones made properly.

A rerun is a whole sampling of the draft's noise, the same picture as without drafts (CachedSearch, arXiv 2607.23159); a resumed draft
keeps its own way down to a level and takes the last steps in full (as Flash-BoN, arXiv 2607.04461, resumes those that caches
made cheap).  Pays where a draft costs well under half of a sampling and ranks as the whole one does: with eta 0, as noise of steps is
drawn for the steps that there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Literal

import torch

from align.processes.base import Step
from align.sampling.loop import Info
from align.sampling.sampler import Sampler
from align.sampling.state import Estimate, State
from align.strategies.base import Strategy, Trials

Refine = Literal["rerun", "resume", "none"]


def handover(draft: Sequence[Step], step: Step) -> int | None:
    """The last of a draft's steps that begins above the level at which a whole sampling's ``step`` does."""
    before = [one.index for one in draft if one.s * step.a > step.s * one.a]
    return before[-1] if before else None


class Drafts(Strategy):
    """``number`` drafts by ``drafter``, a sampler of the same backbone in fewer steps; the best ``keep`` go on.

    Candidate k of a request draws all that is its own from the noise of particle k; candidate 0 is the plain picture.  With
    ``resume`` drafts go on at step ``first``.  A run of drafts is made within what ``lighter`` opens.

    Raises:
        ValueError: none of a draft's steps begins above that one.
    """

    def __init__(
        self,
        sampler: Sampler,
        drafter: Sampler,
        number: int,
        keep: int,
        refine: Refine,
        first: int = 0,
        lighter: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        super().__init__(sampler)
        self.lighter = lighter
        self.drafter, self.number, self.keep, self.refine = drafter, number, keep, refine
        steps, few = sampler.parts.process.steps, drafter.parts.process.steps
        self.first, self.last = (first, handover(few, steps[first])) if refine == "resume" else (0, None)
        if refine == "resume" and self.last is None:
            raise ValueError(f"drafts of {len(few)} steps do not begin above step {first}")
        more = keep * (len(steps) - self.first) if refine != "none" else 0
        self.samplings = (number * len(few) + more) / len(steps)
        self.width = number

    def work(self, trials: Trials) -> None:
        owners = range(len(trials.requests))
        born = [(owner, number) for owner in owners for number in range(self.number)]
        seen: dict[int, Estimate] = {}

        def watch(info: Info) -> None:
            if info.step.index == self.last and info.round == 0:
                seen[info.step.index] = info.estimate

        with self.lighter():
            drafts = trials([trials.candidate(*one) for one in born], watch, sampler=self.drafter)
        worth = drafts.values.tolist()
        if self.refine == "none":
            for row, (owner, number) in enumerate(born):
                picture, latents = drafts.pictures[row], drafts.latents[row]
                trials.best[owner].offer(worth[row], picture, latents, candidate=number)
            return
        chosen = [row for owner in owners for row in self.best(worth, owner)]
        if not chosen:
            return
        kept = [born[row] for row in chosen]
        arrived = None if self.last is None else self.resumed(seen[self.last].take(torch.tensor(chosen)))
        found = trials([trials.candidate(*one) for one in kept], None, arrived, self.first)
        for row, (owner, number) in enumerate(kept):
            told = " ".join(f"{value:.5g}" for value in worth[owner * self.number :][: self.number])
            value = float(found.values[row])
            trials.best[owner].offer(
                value, found.pictures[row], found.latents[row], candidate=number, drafts=told
            )

    def best(self, worth: Sequence[float], owner: int) -> list[int]:
        """Rows of a request's drafts that go on, in their order; of equal ones the first."""
        rows = range(owner * self.number, (owner + 1) * self.number)
        sound = [row for row in rows if math.isfinite(worth[row])]
        return sorted(sorted(sound, key=lambda row: -worth[row])[: self.keep])

    def resumed(self, estimate: Estimate) -> State:
        """Drafts where the rest of their steps begins: one step without noise from where they were evaluated last."""
        step = self.sampler.parts.process.steps[self.first]
        z = step.a * estimate.x0 + step.s * estimate.eps
        return replace(State.of(z, torch.arange(len(z))), previous_x0=estimate.x0)
