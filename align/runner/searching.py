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
    candidates for ``budget`` particles however few are left, or with 0 for those that are left.  ``thresholds``: what a candidate's
    value has to be above for no other to be drawn, where anything has.
    """

    probabilities: tuple[float, ...]
    populations: tuple[int, ...]
    budget: int
    replaced: int
    thresholds: tuple[float, ...]


def searching(config: Config) -> Searching:
    """What the search of a run comes to."""
    method, search, steps = config.method, config.method.search, config.sampler.steps
    chances, numbers = search.probabilities, search.populations
    if search.schedule == "never" or (search.candidates == 1 and search.widen <= 1 and search.drop == "none"):
        chances = ()
    elif search.schedule != "list":
        chances = tuple(search_probabilities(search.schedule, steps))
    if search.drop == "at":
        numbers = pruned(config)
    elif search.drop != "none" and search.drop != "list":
        start, end = method.particles, method.returned
        numbers = tuple(populations(search.drop, steps, start, end))
    return Searching(
        chances,
        () if search.drop == "none" else numbers,
        method.particles if search.drop != "none" else 0,
        int(search.replace * method.particles + 1e-9),
        along(search.threshold, steps - 1) if search.threshold else (),
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


def pruned(config: Config) -> tuple[int, ...]:
    """Particles that go on after each step but the last, where they are dropped at some shares of the steps."""
    method, steps = config.method, config.sampler.steps
    left = [method.particles] * (steps - 1)
    for share, kept in zip(method.search.at, method.search.keep, strict=True):
        first = min(max(round(share * steps), 1), steps - 1)
        number = max(method.returned, math.ceil(kept * method.particles - 1e-9), 1)
        left[first - 1 :] = [number] * (steps - first)
    return tuple(left)


def along(numbers: tuple[float, ...], places: int) -> tuple[float, ...]:
    """Numbers at equal distances from the first of some places to the last, with straight lines between them."""
    found = []
    for place in range(places):
        at = place / max(places - 1, 1) * (len(numbers) - 1)
        low = min(int(at + 1e-9), max(len(numbers) - 2, 0))
        high = min(low + 1, len(numbers) - 1)
        found.append(numbers[low] + (at - low) * (numbers[high] - numbers[low]))
    return tuple(found)


def steered(config: Config) -> tuple[int, ...]:
    """Indices of the steps at which Feynman-Kac steering resamples: also the last where finished pictures do not count."""
    steering, steps = config.method.steering, config.sampler.steps
    first, last = round(steering.start * steps), min(round(steering.end * steps), steps - 1)
    found = range(first, last + 1, max(1, round(steering.every * steps)))
    ends = {steps - 1} if "forgetful_weights" in config.method.quirks else set()
    return tuple(sorted({*found, *ends}))


def backtracking(config: Config) -> tuple[dict[int, float], int]:
    """What particles have to be above at each checked step, by its index, and how many steps they go back."""
    options, steps = config.method.backtracking, config.sampler.steps
    bars = options.threshold * len(options.check) if len(options.threshold) == 1 else options.threshold
    checked = [min(max(round(share * steps), 1), steps - 1) for share in options.check]
    return dict(zip(checked, bars, strict=True)), max(1, round(options.depth * steps))
