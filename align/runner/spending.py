"""How a method spends a budget: one number that makes more of it, found by what a picture then costs.

What a number costs is asked of the method itself (``dry_run``), so there is no arithmetic of costs here.  Where several options grow
together, as the drafts and the children of a local search, they keep their proportions.  Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

from align.config.check import check_config
from align.config.convert import build, plain, shown
from align.config.errors import ConfigError
from align.config.schema import Config
from align.store.errors import StoreError
from align.store.manifest import read_run

STEPS = 1000
DISTILLED = ("few", "lcm")
"""Samplers of networks that were trained for so many steps."""

NUMBERS = {
    "backtracking": "budget",
    "draft": "candidates",
    "noise_gradient": "iterations",
    "prompt_search": "budget",
    "tree_search": "budget",
}
"""Of sections that have one number, which it is."""


@dataclass(frozen=True)
class Spending:
    """A number that can grow.

    Attributes:
        options: what it decides, by their dotted names.
        at: the values of these for a number.
        least, most: numbers to look between; with the least there is still something to choose from.
    """

    options: tuple[str, ...]
    at: Callable[[int], tuple[Any, ...]]
    least: int = 1
    most: int = 4096

    def config(self, config: Config, number: int) -> Config:
        """A configuration with it."""
        for option, value in zip(self.options, self.at(number), strict=True):
            config = changed(config, option, value)
        return config


def spendings_of(config: Config) -> list[Spending]:
    """What the budget of a checked configuration makes more of, one after the other."""
    first, sampler = _spending(config), config.sampler
    if config.budget.spend != "method" or config.method.spends == "steps" or sampler.kind in DISTILLED:
        return [first]
    return [first, Spending(("sampler.steps",), lambda n: (n,), sampler.steps, STEPS)]


def _spending(config: Config) -> Spending:
    method, spends = config.method, config.budget.spent_on(config.method)
    if spends == "particles":
        return Spending(("method.particles",), lambda n: (n,), least=method.returned + 1)
    if spends == "candidates":
        return Spending(("method.search.candidates",), lambda n: (n,), least=2)
    if spends == "steps":
        return Spending(("sampler.steps",), lambda n: (n,), most=STEPS)
    if spends == "rollover":
        rolls = method.rollover
        options = ("method.rollover.budget", "method.rollover.first")
        return Spending(options, lambda n: (n, max(1, round(rolls.first * n / rolls.budget))), most=1_000_000)
    if spends == "local_search":
        local = method.local_search
        shares = (local.drafts, *local.children)
        options = ("method.local_search.drafts", "method.local_search.children")
        return Spending(options, lambda n: _first_and_rest(apportioned(n, shares)), least=len(shares))
    if spends == "noise_search":
        return _noise_search(config)
    if spends not in NUMBERS:
        raise ConfigError(
            f"method={config.method.name} has nothing to spend a budget on: leave budget out, or give another method"
        )
    return Spending((f"method.{spends}.{NUMBERS[spends]}",), lambda n: (n,), most=1_000_000)


def _noise_search(config: Config) -> Spending:
    """New candidates of all rounds: as many full rounds as there can be and one more, or those that are listed in proportion."""
    search = config.method.noise_search
    options = ("method.noise_search.rounds", "method.noise_search.populations")
    if search.begin or search.populations:
        shares = search.populations or (search.candidates,) * search.rounds
        return Spending(options, lambda n: (len(shares), apportioned(n, shares)), least=len(shares))

    def rounds(number: int) -> tuple[int, tuple[int, ...]]:
        whole, rest = divmod(number, search.candidates)
        return (whole + 1, (search.candidates,) * whole + (rest,)) if rest else (whole, ())

    return Spending(options, rounds)


def _first_and_rest(numbers: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    return numbers[0], numbers[1:]


def apportioned(number: int, shares: Sequence[int]) -> tuple[int, ...]:
    """A number, at least one each, in proportion to some shares, by D'Hondt's rule: as it grows, none of the parts shrinks."""
    parts = [1] * len(shares)
    for _ in range(number - len(shares)):
        parts[max(range(len(shares)), key=lambda k: (shares[k] / (parts[k] + 1), -k))] += 1
    return tuple(parts)


def changed(config: Any, option: str, value: Any) -> Any:
    """A configuration, or a part of it, with another value of a dotted option."""
    name, _, rest = option.partition(".")
    return replace(config, **{name: changed(getattr(config, name), rest, value) if rest else value})


def planned(config: Config, cost: Callable[[Config], float], possible: Callable[[Config], object]) -> Config:
    """A configuration with the numbers that its budget comes to.

    As much of what it spends as costs no more than the budget; what is left makes the steps more, so that little is.  The last
    number is of seconds the nearest.  ``cost`` is of a picture, in the budget's own unit, and does not fall as a number
    grows; ``possible`` raises ConfigError where one cannot be.

    Raises:
        ConfigError: not even the least can be had.
    """
    spendings = spendings_of(config)
    for place, spending in enumerate(spendings, 1):
        nearest = config.budget.seconds is not None and place == len(spendings)
        config = _grown(config, spending, cost, possible, nearest=nearest)
    return config


def _grown(
    config: Config,
    spending: Spending,
    cost: Callable[[Config], float],
    possible: Callable[[Config], object],
    *,
    nearest: bool,
) -> Config:
    limit = config.budget.limit
    known: dict[int, float] = {}

    def costs(number: int) -> float:
        if number not in known:
            one = spending.config(config, number)
            check_config(one)
            possible(one)
            known[number] = cost(one)
        return known[number]

    def fits(number: int) -> bool:
        try:
            return number <= spending.most and costs(number) <= limit
        except ConfigError:
            return False

    low = _first(costs, spending)
    if known[low] > limit * (1.05 if config.budget.seconds is not None else 1):
        what = f"budget.{'calls' if config.budget.seconds is None else 'seconds'}"
        raise ConfigError(
            f"{what}={limit:g}: method={config.method.name} takes {known[low]:.3g} a picture with "
            f"{told(spending.config(config, low), spending.options)}, the least: give {what} at least as much, or fewer "
            "sampler.steps"
        )
    step = 1
    while fits(low + step):
        low, step = low + step, 2 * step
    while step > 1:
        step //= 2
        if fits(low + step):
            low += step
    if nearest and known.get(low + 1, math.inf) - limit < limit - known[low]:
        low += 1
    return spending.config(config, low)


def _first(costs: Callable[[int], float], spending: Spending) -> int:
    """The least number that can be. Raises ConfigError as the first one does that cannot."""
    wrong: ConfigError | None = None
    for number in range(spending.least, spending.least + 128):
        try:
            costs(number)
            return number
        except ConfigError as error:
            wrong = wrong or error
    assert wrong is not None
    raise wrong


def plan_told(config: Config) -> str:
    """What a planned configuration spends its budget on, as options of the command."""
    return told(config, [option for spending in spendings_of(config) for option in spending.options])


def told(config: Config, options: Sequence[str]) -> str:
    """Some options with their values."""
    return " ".join(f"{option}={shown(plain(attrgetter(option)(config)))}" for option in options)


def recorded(config: Config) -> Config | None:
    """A configuration with the plan that its folder has for the same budget, if there is one."""
    try:
        found = None if config.run.folder is None else read_run(Path(config.run.folder))
        there = None if found is None else build(Config, found["record"]["config"])
    except (StoreError, ConfigError, KeyError, TypeError):  # told when the folder is opened
        return None
    if there is None or there.budget != config.budget:
        return None
    for spending in spendings_of(config):
        for option in spending.options:
            config = changed(config, option, attrgetter(option)(there))
    # A folder may hold other methods too (run.extend).
    return config if (config.method, config.sampler) == (there.method, there.sampler) else None
