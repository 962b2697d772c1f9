"""What a configuration's search comes to, without importing torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from align.config.schema import Config
from align.sampling.schedules import ahead, populations, search_probabilities


@dataclass(frozen=True)
class Searching:
    """The schedules of a search for each step but the last, empty for none, and how many particles are replaced at each.

    ``probabilities``: that a step is searched.  ``populations``: particles of a group that go on.  A searched step
    spends
    candidates for ``budget`` particles however few are left, or with 0 for those that are left.
    """

    probabilities: tuple[float, ...]
    populations: tuple[int, ...]
    budget: int
    replaced: int


def searching(config: Config) -> Searching:
    """What the search of a run comes to."""
    method, search, steps = config.method, config.method.search, config.sampler.steps
    chances, numbers = search.probabilities, search.populations
    if search.schedule != "list":
        chances = tuple(search_probabilities(search.schedule, steps))
    if search.candidates == 1 and search.widen <= 1 and search.drop == "none":
        chances = ()
    if search.drop != "none" and search.drop != "list":
        start, end = method.particles, method.returned
        numbers = tuple(populations(search.drop, steps, start, end))
    return Searching(
        chances,
        () if search.drop == "none" else numbers,
        method.particles if search.drop != "none" else 0,
        int(search.replace * method.particles + 1e-9),
    )


def valued_beyond(config: Config, calls: Sequence[float]) -> list[float]:
    """What the value of a state that arrives at each step takes beyond its own evaluation, of ``calls`` network evaluations a step."""
    value, steps = config.method.value, len(calls)
    if value.estimate == "looks":
        return [(value.looks - 1) * one for one in calls]
    if value.estimate == "lookahead":
        return [sum(calls[later] for later in ahead(index, steps, value.steps)[1:]) for index in range(steps)]
    return [0.0] * steps


def selecting(config: Config) -> frozenset[int]:
    """Indices of the steps at which all particles are valued, to be weighed, dropped or replaced by their values."""
    method, steps, plan = config.method, config.sampler.steps, searching(config)
    if method.steers:
        return frozenset(steered(config))
    if method.tempers:
        return frozenset(range(math.floor(steps * method.tempering.start + 1e-9), steps))
    if plan.replaced:
        return frozenset(range(1, steps))
    before = zip((method.particles, *plan.populations), plan.populations, strict=False)
    return frozenset(step for step, (one, two) in enumerate(before, 1) if two < one)


def steered(config: Config) -> tuple[int, ...]:
    """Indices of the steps at which Feynman-Kac steering resamples: also the last where finished pictures do not count."""
    steering, steps = config.method.steering, config.sampler.steps
    first, last = round(steering.start * steps), min(round(steering.end * steps), steps - 1)
    found = range(first, last + 1, max(1, round(steering.every * steps)))
    ends = {steps - 1} if "forgetful_weights" in config.method.quirks else set()
    return tuple(sorted({*found, *ends}))
