"""Search over the noise of whole samplings by what their pictures are worth, without a gradient.

Random and zero-order search (Ma et al., arXiv 2501.09732) and evolutionary search (EvoSearch, arXiv 2505.17618) differ in whom a
new candidate comes from.  Candidate 0 of a request is its plain picture, candidate k > 0 draws what is its own from the noise of
particle k.  A candidate is made once, and all count for the best.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from align.processes.base import Step
from align.sampling.host import send
from align.sampling.loop import Info
from align.sampling.noise import Given, Noise
from align.sampling.sampler import Sampler
from align.sampling.selection import by_value
from align.sampling.state import State
from align.strategies.base import Strategy, Trial, Trials

Propose = Literal["random", "neighbours", "evolution"]


def neighbour(pivot: Tensor, direction: Tensor, cosine: float) -> Tensor:
    """A point of the pivot's norm at an exact cosine to it, both (...), to the side that ``direction`` points to.

    In float64: of many entries float32 would lose the right angle.
    """
    n, v = pivot.double().flatten(), direction.double().flatten()
    norm = n.norm()
    u = n / norm
    across = v - (v @ u) * u
    w = across / across.norm()
    moved: Tensor = norm * (cosine * u + math.sqrt(1 - cosine**2) * w)
    return moved.view_as(pivot).to(pivot.dtype)


@dataclass(frozen=True)
class Mutated:
    """A parent's draws, of which a share ``rate`` is new; normal as both are."""

    parent: Noise
    own: Noise
    rate: float

    def normal(self, purpose: str, step: int, round: int, shape: tuple[int, ...]) -> Tensor:
        old, new = (noise.normal(purpose, step, round, shape) for noise in (self.parent, self.own))
        return math.sqrt(1 - self.rate**2) * old + self.rate * new

    def uniform(self, purpose: str, step: int, round: int, shape: tuple[int, ...]) -> Tensor:
        return self.parent.uniform(purpose, step, round, shape)


@dataclass(frozen=True)
class Arrival:
    """What a candidate was when it came to a step, and the noise that was predicted there; (...) each, on the device."""

    z: Tensor
    previous_x0: Tensor
    eps: Tensor

    def mutated(self, step: Step, noise: Tensor, rate: float) -> Tensor:
        """Latents at the same level: of their noise a share ``rate`` is new, and their signal is as it was."""
        return self.z + step.s * ((math.sqrt(1 - rate**2) - 1) * self.eps + rate * noise)


@dataclass(frozen=True)
class Tried:
    """A candidate: its noise, where it was at a step that others begin at, and its scores when it is made."""

    noise: Noise
    arrival: Arrival | None = None
    scores: Tensor | None = None


class NoiseSearch(Strategy):
    """Rounds of candidates, (number of new ones, step at which they begin) each; the first one's begin at the start.

    Of those that began at a step or passed it the best ``elites`` are kept for rounds that begin there.
    """

    def __init__(
        self,
        sampler: Sampler,
        propose: Propose,
        rounds: Sequence[tuple[int, int]],
        cosine: float = 0.95,
        elites: int = 4,
        rate: float = 0.2,
    ) -> None:
        super().__init__(sampler)
        self.propose = propose
        self.rounds = self.with_pivots(rounds)
        self.cosine, self.rate = cosine, rate
        self.elites = elites if propose == "evolution" else 1
        self.steps = sampler.parts.process.steps
        steps = len(self.steps)
        self.samplings = sum(number * (steps - first) for number, first in self.rounds) / steps
        self.width = max(number for number, _ in self.rounds)

    def with_pivots(self, rounds: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Rounds with all that they make: the first one the plain picture too."""
        (number, first), *later = rounds
        return [(1 + number, first), *later]

    def work(self, trials: Trials) -> None:
        firsts = sorted({first for _, first in self.rounds})
        pools: list[dict[int, list[Tried]]] = [{first: [] for first in firsts} for _ in trials.requests]
        known = 0
        for number, first in self.rounds:
            born = [
                (owner, known + place, self.child(trials, owner, pool[first], known + place, place, first))
                for owner, pool in enumerate(pools)
                for place in range(number)
            ]
            self.make(trials, born, pools, first)
            known += number

    def child(
        self, trials: Trials, owner: int, pool: Sequence[Tried], number: int, place: int, first: int
    ) -> Tried:
        """Candidate ``number``, the ``place``-th of its round, yet to be made: its noise, and what it is at step ``first``."""
        request = trials.requests[owner]
        own = self.sampler.noise(request, number)
        if number == 0 or self.propose == "random" or (self.propose == "evolution" and not pool):
            return Tried(own)
        if self.propose == "neighbours":
            return Tried(self.beside(pool[0].noise if pool else self.sampler.noise(request, 0), own))
        parent = pool[place % len(pool)]
        arrival = parent.arrival
        if arrival is not None:
            new = send(own.normal("mutation", first, 0, tuple(arrival.z.shape)), arrival.z.device)
            arrival = replace(arrival, z=arrival.mutated(self.steps[first], new, self.rate))
        return Tried(Mutated(parent.noise, own, self.rate), arrival)

    def beside(self, pivot: Noise, own: Noise) -> Noise:
        """A neighbour of the pivot's start noise; what steps draw is the pivot's."""
        shape = self.sampler.parts.predict.backbone.latent_shape()
        start, direction = pivot.normal("initial", 0, 0, shape), own.normal("direction", 0, 0, shape)
        return Given({("initial", 0): neighbour(start, direction, self.cosine)}, pivot)

    def make(
        self,
        trials: Trials,
        born: Sequence[tuple[int, int, Tried]],
        pools: Sequence[dict[int, list[Tried]]],
        first: int,
    ) -> None:
        """Make candidates, (owner, number, candidate) each, and remember what others can come from."""
        seen: dict[int, Info] = {}

        def watch(info: Info) -> None:
            if info.round == 0 and info.step.index in pools[0]:
                seen[info.step.index] = info

        rows = [Trial(owner, trials.requests[owner], child.noise) for owner, _, child in born]
        found = trials(rows, watch, _together([child for *_, child in born]) if first else None, first)
        for row, (owner, number, child) in enumerate(born):
            value, scores, best = float(found.values[row]), found.scores[row], trials.best[owner]
            if best.offer(value, found.pictures[row], found.latents[row], candidate=number):
                best.scores = scores
            for step, pool in pools[owner].items():
                if step < first:
                    continue
                arrival = None
                if step:
                    state, estimate = seen[step].state, seen[step].estimate
                    arrival = Arrival(state.z[row], state.previous_x0[row], estimate.eps[row])
                pool.append(Tried(child.noise, arrival, scores))
        for pool in (pool for each in pools for pool in each.values() if pool):
            scores = torch.stack([one.scores for one in pool if one.scores is not None])
            worth = by_value(self.sampler.parts.judge.among(scores))
            # Among equals the first one stays.
            order = torch.sort(worth, descending=True, stable=True).indices[: self.elites]
            pool[:] = [pool[place] for place in order.tolist()]


def _together(children: Sequence[Tried]) -> State:
    """One particle for each candidate."""
    arrivals = [child.arrival for child in children if child.arrival is not None]
    state = State.of(torch.stack([arrival.z for arrival in arrivals]), torch.arange(len(arrivals)))
    return replace(state, previous_x0=torch.stack([arrival.previous_x0 for arrival in arrivals]))
