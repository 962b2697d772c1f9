"""Options of what searches among the states of one sampling; see ``method``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from align.config.ranges import Between


@dataclass(frozen=True)
class SearchConfig:
    """Candidates for each particle's next state, of which one goes on (SVDD, DSearch)."""

    candidates: Annotated[int, Between(1, 65536)] = 1
    """M, candidates of a particle at a step; 1 does not search."""
    widen: Annotated[float, Between(0, 1e4)] = 1.0
    """w, factor of M at a searched step."""
    schedule: Literal["all", "uniform", "linear", "exponential", "list", "never"] = "all"
    """How likely each step is searched: always, 0.7, (i + 10)/S, 1 - exp(-3 i/S); or as listed; or never, where particles are dropped
    and that is all."""
    probabilities: Annotated[tuple[float, ...], Between(0, 1)] = ()
    """Of ``schedule=list``: one for each step but the last."""
    otherwise: Literal["few", "one"] = "few"
    """A step that is not searched draws M candidates, or one that nobody looks at."""
    temperature: Annotated[float, Between(0, 1e9)] = 0.0
    """alpha: a candidate of value v goes on with probability proportional to exp(v/alpha); 0 takes the best."""
    until: Literal["all", "above", "better"] = "all"
    """How many are drawn: all; or one at a time and M at most, until the value of one is above ``threshold``, or better than that of the
    state which it comes from.  Of M that are not, the best goes on."""
    threshold: Annotated[tuple[float, ...], Between(-1e9, 1e9)] = ()
    """Of ``until=above``: one number, or some at equal distances over the searched steps, with straight lines between them; such as
    a quantile of the values there with other prompts."""
    drop: Literal["none", "exponential", "quadratic", "linear", "sigmoid", "list", "at"] = "none"
    """How particles get fewer, from ``method.particles`` to ``method.returned``, or as listed; searched steps widen as they do."""
    populations: Annotated[tuple[int, ...], Between(1, 65536)] = ()
    """Of ``drop=list``: particles after each step but the last."""
    at: Annotated[tuple[float, ...], Between(0, 1)] = ()
    """Of ``drop=at``: shares of the steps, rising.  Particles are valued as they come to one of these and the best go on."""
    keep: Annotated[tuple[float, ...], Between(0, 1)] = ()
    """Likewise: which share of ``method.particles``, rounded up and falling, goes on from each."""
    replace: Annotated[float, Between(0, 1)] = 0.0
    """rho: floor(rho * particles) of a group, the worst, are replaced at each step by copies of others (DSearch-R)."""
    replace_temperature: Annotated[float, Between(1e-9, 1e9)] = 1.0
    """Copies are drawn with probability proportional to exp(v/temperature), v in deviations of the group."""


@dataclass(frozen=True)
class RolloverConfig:
    """Rollover budget forcing (RBF): each particle draws next states one at a time, until one is better or a quota is used up."""

    budget: Annotated[int, Between(0, 1_000_000)] = 0
    """Evaluations of each particle; 0 for none of it.  Each level has an equal share; what it does not use, the next has too."""
    first: Annotated[int, Between(1, 65536)] = 1
    """Of these the evaluations of initial states, of which the best begins."""


@dataclass(frozen=True)
class BacktrackingConfig:
    """Depth-first search: a particle that is not good enough at a checked step goes back to a noisier level, and on from there."""

    budget: Annotated[int, Between(0, 1_000_000)] = 0
    """Evaluations of each particle at most; 0 for none of it.  Where they do not allow a way back, the best state that the particle
    has had at the step goes on."""
    check: Annotated[tuple[float, ...], Between(0, 1)] = ()
    """Shares of the steps before which particles are checked, the first and what comes after the last aside."""
    threshold: Annotated[tuple[float, ...], Between(-1e9, 1e9)] = ()
    """delta: a particle passes whose value is above it; one number, or one for each check."""
    depth: Annotated[float, Between(0, 1)] = 0.25
    """How far a particle goes back, as a share of the steps; one step at least."""
