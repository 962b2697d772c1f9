"""From a method's options to what wraps its samplings, if anything does."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from align.config.errors import ConfigError
from align.config.schema import Config
from align.config.strategy import DraftConfig
from align.runner.guiders import guider_of
from align.runner.processes import process_of
from align.runner.rewriting import rewriter_of
from align.runner.words import words_of

if TYPE_CHECKING:
    from align.backbones.base import Backbone
    from align.backbones.guider import Weak
    from align.sampling.sampler import Sampler, Samples
    from align.strategies.words import Words


def strategy_of(config: Config, sampler: Sampler) -> Samples:
    """The sampler itself where nothing wraps it. Raises ConfigError: what it needs cannot be used."""
    method, search = config.method, config.method.noise_search
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
    if search.rounds:
        from align.released.noise_search import ForgetfulSearch
        from align.strategies.noise_search import NoiseSearch

        searches = ForgetfulSearch if "forgetful_pivot" in config.method.quirks else NoiseSearch
        return searches(
            sampler, search.propose, search_rounds(config), search.cosine, search.elites, search.rate
        )
    if method.local_search.drafts:
        from align.strategies.local_search import LocalSearch

        return LocalSearch(sampler, method.local_search.drafts, local_rounds(config))
    if method.draft.candidates:
        return _drafts(config, sampler)
    if method.tree_search.budget:
        from align.strategies.tree_search import Rules, TreeSearch

        tree = method.tree_search
        rules = Rules(tree.descend, tree.rate, tree.widen, tree.exponent, tree.explore)
        at = [step for step in branching(config) if sampler.parts.process.steps[step].std > 0]
        return TreeSearch(sampler, rules, tree.budget, evaluations_of(config), at)
    if (words := words_of(config)) is not None:
        return _prompt_search(config, sampler, words)
    if config.method.prompt_rewrite.by is not None:
        from align.strategies.prompt_rewrite import PromptRewrite, Rewritten

        kind = PromptRewrite if config.method.prompt_rewrite.keep == "better" else Rewritten
        return kind(sampler, rewriter_of(config))
    return sampler


def _drafts(config: Config, sampler: Sampler) -> Samples:
    from align.strategies.draft import Drafts

    short, parts, draft = shortened(config), sampler.parts, config.method.draft
    backbone, drafter, few = parts.predict.backbone, copy(sampler), short.sampler.steps
    guider = replace(guider_of(short, backbone), cached=draft.cached(few))
    drafter.parts = replace(
        parts, predict=replace(parts.predict, guider=guider), process=process_of(short, backbone)
    )
    first = round(draft.begin * config.sampler.steps)
    try:
        return Drafts(
            sampler,
            drafter,
            draft.candidates,
            draft.keep,
            draft.refine,
            first,
            _lighter(draft, few, backbone),
        )
    except ValueError as error:
        raise ConfigError(
            f"method.draft.begin={draft.begin:g}: {error}: give a larger share, or more method.draft.steps"
        ) from None


def _lighter(draft: DraftConfig, few: int, backbone: Backbone) -> Callable[[], AbstractContextManager[None]]:
    """What a run of drafts is made within; nothing on a model without a network."""
    if not draft.lighter or not hasattr(backbone, "lighter"):
        return nullcontext
    from align.backbones.caching import Taylor

    taylor = Taylor(draft.warmup, draft.interval, draft.order, draft.after(few))
    return partial(backbone.lighter, skipped_of(draft), taylor if draft.cache == "taylorseer" else None)


def skipped_of(draft: DraftConfig) -> Weak | None:
    """The network of drafts that do without some blocks."""
    from align.backbones.guider import Weak

    return Weak("skip", draft.stack, draft.skip) if draft.skip else None


def drafted(config: Config) -> list[float]:
    """Network evaluations of a draft at each of its steps."""
    short = shortened(config)
    cached = config.method.draft.cached(short.sampler.steps)
    return [0.0 if step in cached else number for step, number in enumerate(evaluations_of(short))]


def shortened(config: Config) -> Config:
    """A configuration with as many steps as its drafts have."""
    steps = config.method.draft.few(config.sampler.steps)
    return replace(config, sampler=replace(config.sampler, steps=steps))


def _prompt_search(config: Config, sampler: Sampler, words: Words) -> Samples:
    from align.sampling.evolution import Sizes
    from align.strategies.prompt_search import PromptSearch

    search = config.method.prompt_search
    sizes = Sizes(
        search.budget, search.population, search.parents, search.mutants, search.children, search.mutation
    )
    return PromptSearch(sampler, words, sizes, search.images)


def search_rounds(config: Config) -> list[tuple[int, int]]:
    """Of each round of a search over noise, the new candidates and the step at which they begin."""
    search, steps = config.method.noise_search, config.sampler.steps
    numbers = search.populations or (search.candidates,) * search.rounds
    shares = (0.0, *search.begin) if search.begin else (0.0,) * search.rounds
    return [(number, round(share * steps)) for number, share in zip(numbers, shares, strict=True)]


def local_rounds(config: Config) -> list[tuple[int, int]]:
    """Likewise of a search around the best picture."""
    search, steps = config.method.local_search, config.sampler.steps
    return [
        (number, round(share * steps)) for number, share in zip(search.children, search.begin, strict=True)
    ]


def branching(config: Config) -> list[int]:
    """Steps at which a tree of states can branch; the last one's children would be finished pictures."""
    shares, steps = config.method.tree_search.branch, config.sampler.steps
    return sorted({round(share * steps) for share in shares}) if shares else list(range(steps - 1))


def evaluations_of(config: Config) -> list[float]:
    """Network evaluations of one particle at each step, with those that drawing its next state takes."""
    return [here + beyond for here, beyond in zip(calls_of(config), drawing_of(config), strict=True)]


def drawing_of(config: Config) -> list[float]:
    """Those that drawing a next state takes beyond the particle's own evaluation."""
    *before, _ = calls_of(config)
    inner = config.sampler.inner if config.sampler.kind == "glass" else 1
    return [(inner - 1) * one for one in before] + [0.0]


def calls_of(config: Config) -> list[float]:
    """Those of its own evaluation: two where a weaker network is asked too, half where the pair is not."""
    number, guider = config.sampler.steps, config.guider
    weak, pairs = guider.weak_steps(number), guider.steps(number)
    always = not config.reads_negative or config.pair_scale == 1 or config.reads_both_halves
    return [(1 if always or step in pairs else 0.5) + (step in weak) for step in range(number)]


def samplings(config: Config) -> tuple[float, int]:
    """Whole samplings of one picture, and how many of them are differentiated."""
    method = config.method
    if method.follows_noise:
        options, updates = method.noise_gradient, method.noise_gradient.iterations
        beside = options.neighbours * updates if options.estimate == "hybrid" else 0
        return updates + beside + ("last_iterate" not in method.quirks), updates
    if method.noise_search.rounds:
        pivots = method.noise_search.rounds if "forgetful_pivot" in method.quirks else 1
        return pivots + _begun(config, search_rounds(config)), 0
    if method.local_search.drafts:
        return method.local_search.drafts + _begun(config, local_rounds(config)), 0
    if method.draft.candidates:
        draft, first = method.draft, round(method.draft.begin * config.sampler.steps)
        drafts = draft.candidates * sum(drafted(config)) / sum(evaluations_of(config))
        if draft.refine == "none":
            return drafts, 0
        return drafts + _begun(config, [(draft.keep, first if draft.refine == "resume" else 0)]), 0
    if method.tree_search.budget:
        return method.tree_search.budget / sum(evaluations_of(config)), 0
    if method.prompt_search.budget:
        return method.prompt_search.budget * method.prompt_search.images, 0
    if method.prompt_rewrite.by:
        return 2 if method.prompt_rewrite.keep == "better" else 1, 0
    return 1, 0


def _begun(config: Config, rounds: list[tuple[int, int]]) -> float:
    """What rounds of (number, step at which they begin) come to in whole samplings."""
    calls = evaluations_of(config)
    return sum(number * sum(calls[first:]) for number, first in rounds) / sum(calls)
