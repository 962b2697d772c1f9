"""From a method's options to what wraps its samplings, if anything does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from align.config.schema import Config

if TYPE_CHECKING:
    from align.sampling.sampler import Sampler, Samples


def strategy_of(config: Config, sampler: Sampler) -> Samples:
    """The sampler itself where nothing wraps it."""
    search = config.method.noise_search
    if search.rounds:
        from align.released.noise_search import ForgetfulSearch
        from align.strategies.noise_search import NoiseSearch

        searches = ForgetfulSearch if "forgetful_pivot" in config.method.quirks else NoiseSearch
        return searches(
            sampler, search.propose, search_rounds(config), search.cosine, search.elites, search.rate
        )
    return sampler


def search_rounds(config: Config) -> list[tuple[int, int]]:
    """Of each round of a search over noise, the new candidates and the step at which they begin."""
    search, steps = config.method.noise_search, config.sampler.steps
    numbers = search.populations or (search.candidates,) * search.rounds
    shares = (0.0, *search.begin) if search.begin else (0.0,) * search.rounds
    return [(number, round(share * steps)) for number, share in zip(numbers, shares, strict=True)]


def calls_of(config: Config) -> list[int]:
    """Network evaluations of one particle at each step: two where a weaker network is asked too."""
    weak = config.guider.weak_steps(config.sampler.steps)
    return [1 + (step in weak) for step in range(config.sampler.steps)]


def samplings(config: Config) -> tuple[float, int]:
    """Whole samplings of one picture, and how many of them are differentiated."""
    method = config.method
    if method.noise_gradient.iterations:
        updates = method.noise_gradient.iterations
        beside = (
            method.noise_gradient.neighbours * updates if method.noise_gradient.estimate == "hybrid" else 0
        )
        return updates + 1 + beside, updates
    if method.noise_search.rounds:
        calls = calls_of(config)
        begun = sum(number * sum(calls[first:]) for number, first in search_rounds(config))
        pivots = method.noise_search.rounds if "forgetful_pivot" in method.quirks else 1
        return pivots + begun / sum(calls), 0
    if method.prompt_search.budget:
        return method.prompt_search.budget * method.prompt_search.images, 0
    return 1, 0
