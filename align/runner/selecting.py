"""From a method's options to what chooses among particles and states.  Everything is imported when it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from align.config.schema import Config
from align.runner.searching import backtracking, searching, steered

if TYPE_CHECKING:
    from align.sampling.backtracking import Backtracking
    from align.sampling.rollover import Rollover
    from align.sampling.search import Search
    from align.sampling.selection import Keep


def search_of(config: Config) -> Search | None:
    """Candidates for each next state, where any are compared."""
    from align.sampling.search import Search

    search, plan = config.method.search, searching(config)
    if not plan.probabilities:
        return None
    return Search(
        search.candidates,
        search.widen,
        plan.probabilities,
        plan.budget,
        search.otherwise,
        search.temperature,
        search.until,
        plan.thresholds,
    )


def rollover_of(config: Config) -> Rollover | None:
    """A budget of each particle, where it has one."""
    from align.released.rollover import AnyLevel
    from align.sampling.rollover import Rollover

    method = config.method
    if not method.rolls:
        return None
    rolls = AnyLevel if "any_level" in method.quirks else Rollover
    return rolls(method.rollover.budget, method.rollover.first)


def backtracking_of(config: Config) -> Backtracking | None:
    """Where particles go back, if they do."""
    from align.sampling.backtracking import Backtracking

    if not config.method.backtracks:
        return None
    return Backtracking(config.method.backtracking.budget, *backtracking(config))


def selection_of(config: Config) -> Keep:
    """Which particles go on."""
    from align.released.particles import ForgetfulSteering, StaleTempered
    from align.released.search import RawPrune
    from align.released.tempering import PublishedLadder
    from align.sampling.particles import Steering, Tempered
    from align.sampling.resampling import Resampling
    from align.sampling.search import Prune
    from align.sampling.selection import Keep
    from align.sampling.tempering import Tempering

    method, steps, quirks = config.method, config.sampler.steps, config.method.quirks
    resampling = Resampling(method.resampling.scheme, method.resampling.threshold)
    steering, ladder = method.steering, method.tempering
    if steering.potential != "none":
        steers = ForgetfulSteering if "forgetful_weights" in quirks else Steering
        return steers(steering.potential, steering.rate, steered(config), resampling, growth=steering.growth)
    if ladder.rule != "none":
        tempers = PublishedLadder if "published_ladder" in quirks else Tempering
        tempering = tempers(
            ladder.rule,
            ladder.schedule,
            ladder.growth(steps),
            ladder.exponent,
            ladder.start,
            method.resampling.threshold or 1.0,
        )
        weighs = StaleTempered if "stale_gradients" in quirks else Tempered
        return weighs(tempering, ladder.alpha, resampling, steps, config.sampler.guidance_scale)
    search, plan = method.search, searching(config)
    if not plan.populations and not plan.replaced:
        return Keep()
    prunes = RawPrune if "raw_values" in quirks else Prune
    return prunes(plan.populations, plan.replaced, search.replace_temperature, method.particles)
