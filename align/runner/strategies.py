"""From a method's options to what wraps its samplings, if anything does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from align.config.schema import Config
from align.runner.words import words_of

if TYPE_CHECKING:
    from align.sampling.sampler import Sampler, Samples
    from align.strategies.words import Words


def strategy_of(config: Config, sampler: Sampler) -> Samples:
    """The sampler itself where nothing wraps it. Raises ConfigError: what it needs cannot be used."""
    if (words := words_of(config)) is not None:
        return _prompt_search(config, sampler, words)
    return sampler


def _prompt_search(config: Config, sampler: Sampler, words: Words) -> Samples:
    from align.strategies.evolution import Sizes
    from align.strategies.prompt_search import PromptSearch

    search = config.method.prompt_search
    sizes = Sizes(
        search.budget, search.population, search.parents, search.mutants, search.children, search.mutation
    )
    return PromptSearch(sampler, words, sizes, search.images)


def samplings(config: Config) -> tuple[int, int]:
    """Whole samplings of one picture, and how many of them are differentiated."""
    method = config.method
    if method.noise_gradient.iterations:
        updates = method.noise_gradient.iterations
        beside = (
            method.noise_gradient.neighbours * updates if method.noise_gradient.estimate == "hybrid" else 0
        )
        return updates + 1 + beside, updates
    if method.noise_search.rounds:
        return 1 + method.noise_search.rounds * method.noise_search.candidates, 0
    if method.prompt_search.budget:
        return method.prompt_search.budget * method.prompt_search.images, 0
    if method.prompt_rewrite.by:
        return 2 if method.prompt_rewrite.keep == "better" else 1, 0
    return 1, 0
