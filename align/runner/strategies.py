"""From a method's options to what wraps its samplings, if anything does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from align.config.schema import Config

if TYPE_CHECKING:
    from align.sampling.sampler import Sampler, Samples


def strategy_of(config: Config, sampler: Sampler) -> Samples:
    """The sampler itself where nothing wraps it."""
    method = config.method
    if method.follows_noise:
        from align.released.noise_gradient import LostGradient, shared
        from align.sampling.predict import Differentiable
        from align.strategies.noise_gradient import NoiseGradient

        return NoiseGradient(
            sampler,
            method.noise_gradient,
            differentiable=LostGradient if "lost_gradient" in method.quirks else Differentiable,
            rest=shared if "shared_noise" in method.quirks else None,
            keep_last="last_iterate" in method.quirks,
            idle="idle_noise" in method.quirks,
        )
    return sampler


def samplings(config: Config) -> tuple[int, int]:
    """Whole samplings of one picture, and how many of them are differentiated."""
    method = config.method
    if method.follows_noise:
        options, updates = method.noise_gradient, method.noise_gradient.iterations
        beside = options.neighbours * updates if options.estimate == "hybrid" else 0
        return updates + beside + ("last_iterate" not in method.quirks), updates
    if method.noise_search.rounds:
        return 1 + method.noise_search.rounds * method.noise_search.candidates, 0
    if method.prompt_search.budget:
        return method.prompt_search.budget * method.prompt_search.images, 0
    return 1, 0
