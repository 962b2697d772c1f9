"""What a run will cost, as far as its configuration tells."""

from __future__ import annotations

import math

from align.config.schema import Config
from align.config.strategy import KEPT_STEPS
from align.runner.searching import backtracking, searching, selecting, valued_beyond
from align.runner.strategies import branching, calls_of, drawing_of, evaluations_of, samplings
from align.sampling.schedules import searched_width


def network_evaluations(config: Config) -> tuple[float, float]:
    """Least and most network evaluations of one picture; both halves of a guidance pair are one."""
    method = config.method
    beyond = valued_beyond(config, calls_of(config))
    plain = sum(evaluations_of(config)) + sum(beyond[step] for step in selecting(config))
    least = most = plain * method.particles / method.returned
    if method.rolls:
        last = 1 if "any_level" in method.quirks else 0
        tries = (method.rollover.budget - last) * method.particles / method.returned
        least, most = tries * (1 + min(beyond)), tries * (1 + max(beyond))
    if method.backtracks:
        least, most = (cost / method.returned for cost in _backtracked(config))
    if method.searches:
        least, most = (_searched(config, lucky=lucky) / method.returned for lucky in (False, True))
    recurrence = method.recurrence
    rounds = {
        "none": 0,
        "fixed": min(max(recurrence.rounds), recurrence.cap),
        "gradient_norm": recurrence.cap,
    }
    repeats = method.guided or (method.searches and recurrence.rule == "fixed")
    number, _ = samplings(config)
    if method.tree_search.budget:  # What is left is less than the cheapest child.
        calls = evaluations_of(config)
        least -= max(0, sum(calls[branching(config)[-1] + 1 :]) - min(calls)) / number
    again = recomputed(config)
    return least * number + again, most * (1 + (rounds[recurrence.rule] if repeats else 0)) * number + again


def walked_back(config: Config) -> float:
    """Network evaluations of one picture that a gradient of its noise comes back through."""
    _, differentiated = samplings(config)
    calls, last = evaluations_of(config), config.method.noise_gradient.last
    # What a step draws is added to what its network call gave.
    return differentiated * sum(calls if last is None else calls[len(calls) - last + 1 :])


def recomputed(config: Config) -> float:
    """Those of them that are made again on the way, as nothing of them was kept."""
    lost = "lost_gradient" in config.method.quirks
    return 0 if lost or config.sampler.steps <= KEPT_STEPS else walked_back(config)


def _backtracked(config: Config) -> tuple[float, float]:
    """Least and most of a group: no particle goes back, or all do for as long as they can."""
    method, calls = config.method, evaluations_of(config)
    more = method.backtracking.budget - len(calls)
    beyond = valued_beyond(config, calls_of(config))
    least = sum(beyond[step] for step in backtracking(config)[0])
    most = least + more * max(beyond)
    return method.particles * (sum(calls) + least), method.particles * (sum(calls) + more * max(calls) + most)


def _searched(config: Config, *, lucky: bool) -> float:
    """Of a group; ``lucky`` if every step is searched that can be, and no candidate is good enough."""
    method, search, plan = config.method, config.method.search, searching(config)
    number = method.particles
    calls, drawing = calls_of(config), drawing_of(config)
    beyond, selected = valued_beyond(config, calls), selecting(config)
    total = number * (calls[0] + beyond[0] * (0 in selected))
    # What a step searches is evaluated where it arrives, at the next one.
    for step in range(len(calls) - 1):
        arrival = step + 1
        if 0 < step <= len(plan.populations):
            number = min(number, plan.populations[step - 1])
        chance = plan.probabilities[step] if step < len(plan.probabilities) else 0
        width = search.candidates if search.otherwise == "few" else 1
        if chance >= 1 or (lucky and chance > 0):
            width = searched_width(search.candidates, search.widen, plan.budget, number)
        valued = width > 1
        if search.until != "all" and not lucky:
            width = 1
        total += number * width * drawing[step]
        if method.value.estimate == "network" and valued:  # Only the chosen candidate is evaluated.
            total += number * calls[arrival]
            continue
        again = arrival in selected
        total += number * width * (calls[arrival] + beyond[arrival] * (valued or again))
        if method.guided and valued:  # The chosen candidate is evaluated again, with a gradient.
            total += number * (calls[arrival] + beyond[arrival] * again)
    return total


def cost_line(config: Config, pictures: int) -> str:
    """The estimate in words, for the pictures that are still to be made."""
    least, most = network_evaluations(config)
    each = _shown(least) if least == most else f"{_shown(least)} to {_shown(most)}"
    total = _shown(least * pictures)
    if least != most:
        total += f" to {_shown(most * pictures)}"
    how = (
        (", guided" if config.method.guided else "")
        + _walked(config)
        + (", no negative half at scale 1" if config.one_half else "")
    )
    if weak := config.guider.weak_steps(config.sampler.steps):
        how += f", {len(weak)} steps with a further pass ({config.guider.name})"
    return f"{each} network evaluations a picture{how}; {total} in all"


def _walked(config: Config) -> str:
    if not config.method.follows_noise or "lost_gradient" in config.method.quirks:
        return ""
    again = ", each made once more for it" if recomputed(config) else ""
    return f", {_shown(walked_back(config))} of them walked back{again}"


def _shown(number: float) -> str:
    return f"{math.ceil(number - 1e-6):,}"
