"""A method on a toy problem: many runs side by side, through the loop that makes pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from align.backbones.base import Conditioning
from align.commands.parser import parse
from align.config.compose import jobs_of
from align.runner.build import build_sampler
from align.sampling.batching import Calls
from align.sampling.ledger import Cost, Ledger
from align.sampling.loop import Info, run, start
from align.sampling.noise import NoiseStream
from align.sampling.sampler import Sampler
from align.sampling.state import Pictures, State
from align.toy.densities import Density, Mixture
from align.toy.problems import REWARDS
from align.toy.reward import Quadratic

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Ensemble:
    """G independent runs, each with the P particles that are left in the end.

    Attributes:
        x: (G, P, D) float64 coordinates.
        log_weights: (G, P) float64, not normalised.
        shares: (G, P) float64 chance of each particle to be what its run returns; they sum to 1.
        ess, resampled: (steps,) mean effective sample size of the runs, and share of them that were resampled, at each
            step at which particles are weighed.
        cost: of all runs.
    """

    x: Tensor
    log_weights: Tensor
    shares: Tensor
    ess: Tensor
    resampled: Tensor
    cost: Cost

    @property
    def evidence(self) -> Tensor:
        """(G,) estimates of E[exp(r / alpha)]."""
        return self.log_weights.logsumexp(dim=1).exp()

    def integrals(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """(G, K) estimates of E[f(x) exp(r(x) / alpha)], unbiased for any number of particles."""
        runs, particles, dimension = self.x.shape
        values = function(self.x.view(-1, dimension)).view(-1, runs, particles)
        return (values * self.log_weights.exp()).sum(dim=2).T

    def means(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """(G, K) expectations, over what each run returns, of K functions from points (N, D) to (K, N)."""
        runs, particles, dimension = self.x.shape
        values = function(self.x.view(-1, dimension)).view(-1, runs, particles)
        return (values * self.shares).sum(dim=2).T


def reward_of(problem: str) -> Quadratic:
    """That of a problem, of coordinates."""
    return REWARDS["toy_linear" if problem == "gaussian" else f"toy_{problem}"]


def nearest(density: Density, x: Tensor) -> Tensor:
    """(K, N) float64: 1 for the mode of a mixture whose mean is nearest to each of (N, D) points, 0 for all others."""
    assert isinstance(density, Mixture)
    mode = torch.cdist(x, density.means).argmin(dim=1)
    return torch.nn.functional.one_hot(mode, len(density.means)).double().T


def sampler_of(problem: str, *options: str, rows: int) -> Sampler:
    """What ``python -m align experiment=toy_PROBLEM OPTIONS`` samples with, in calls of ``rows``."""
    (job,) = jobs_of(parse([f"experiment=toy_{problem}", *options]))
    sampler = build_sampler(job.config, Calls(rows))
    assert isinstance(sampler, Sampler)
    return sampler


class _Row:
    """One particle's stream: normal draws are rows of what was drawn for all, which is much faster."""

    def __init__(self, table: _Table, place: int, own: NoiseStream) -> None:
        self.table, self.place, self.own = table, place, own

    def normal(self, purpose: str, step: int, round: int, shape: tuple[int, ...]) -> Tensor:
        return self.table.rows(purpose, step, round, shape)[self.place]

    def uniform(self, purpose: str, step: int, round: int, shape: tuple[int, ...]) -> Tensor:
        return self.own.uniform(purpose, step, round, shape)


class _Table:
    """Normal draws of all particles."""

    def __init__(self, seed: int, number: int) -> None:
        self.seed, self.number = seed, number
        self.key: tuple[object, ...] = ()
        self.drawn: tuple[Tensor, ...] = ()

    def rows(self, purpose: str, step: int, round: int, shape: tuple[int, ...]) -> tuple[Tensor, ...]:
        key = (purpose, step, round, shape)
        if key != self.key:
            whole = NoiseStream(self.seed, "all", 0).normal(purpose, step, round, (self.number, *shape))
            self.key, self.drawn = key, whole.unbind()
        return self.drawn


def ensemble(sampler: Sampler, problem: str, runs: int, seed: int = 0) -> Ensemble:
    """Run a sampler ``runs`` times side by side.

    Args:
        sampler: of ``sampler_of``; its population says how many particles a run has and what it returns.
        problem: whose reward decides in the end.
        runs: G.
        seed: of all noise; the same draws only for the same number of runs.
    """
    particles = sampler.population.particles
    table = _Table(seed, runs * particles)
    own = [
        _Row(table, k, NoiseStream(seed, "one", k // particles, k % particles))
        for k in range(runs * particles)
    ]
    pictures = Pictures(
        ["sample"] * runs,
        Conditioning.of([sampler.parts.predict.backbone.encode("sample", "")] * runs),
        torch.zeros(runs, 1, 1),
        torch.zeros(runs, dtype=torch.bool),
    )
    ledger, traces = Ledger(runs), []

    def watch(info: Info) -> None:
        figures = [one for one in info.trace.values() if "ess" in one]
        if figures:
            traces.append([sum(one[name] for one in figures) / len(figures) for name in ("ess", "resampled")])

    def streams(picture: int, particle: int) -> _Row:
        return own[picture * particles + particle]

    with torch.no_grad():
        shape, process = sampler.parts.predict.backbone.latent_shape(), sampler.parts.process
        state = start(streams, runs, particles, shape, CPU, process.initial)
        state = run(sampler.parts, state, pictures, streams, ledger, on_evaluation=watch)
        if sampler.parts.select.reads_end():
            value = sampler.score(sampler.decode(state.z), ["sample"] * len(state.z))
            state = sampler.parts.select.finish(state, value)
    x = state.z.double().view(runs, -1, state.z.shape[1])
    ess, resampled = torch.tensor(traces, dtype=torch.float64).view(-1, 2).T
    return Ensemble(
        x,
        state.log_weights.view(runs, -1),
        _shares(sampler, state, reward_of(problem)(x.flatten(0, 1)).view(runs, -1)),
        ess,
        resampled,
        sum(ledger.costs, Cost()),
    )


def _shares(sampler: Sampler, state: State, reward: Tensor) -> Tensor:
    """(G, P) chances to be returned, as the sampler chooses."""
    choose = sampler.population.choose
    weights = state.log_weights.view(reward.shape)
    if choose == "draw":
        return torch.softmax(weights, dim=1)
    ranked = {"best": reward, "weight": weights}.get(choose, -torch.arange(reward.shape[1]).expand_as(reward))
    return torch.nn.functional.one_hot(ranked.argmax(dim=1), reward.shape[1]).double()
