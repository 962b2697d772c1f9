"""From a method's options to what wraps its samplings, if anything does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from align.config.schema import Config

if TYPE_CHECKING:
    from align.sampling.sampler import Sampler, Samples


def strategy_of(config: Config, sampler: Sampler) -> Samples:
    """The sampler itself where nothing wraps it."""
    method = config.method
    if method.noise_gradient.iterations:
        from align.strategies.noise_gradient import NoiseGradient

        return NoiseGradient(sampler, method.noise_gradient)
    return sampler


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
    return 1, 0
