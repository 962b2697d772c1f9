"""What wraps whole samplings, against the rest of a configuration."""

from __future__ import annotations

from align.config.check_words import check_words
from align.config.convert import shown
from align.config.errors import ConfigError
from align.config.method import STRATEGIES
from align.config.schema import Config


def check_strategy(config: Config) -> None:
    """Refuse two strategies at once, and what they cannot wrap. Raises ConfigError."""
    method = config.method
    if not method.strategies:
        return
    if len(method.strategies) > 1:
        one, two = (f"method.{name}.{STRATEGIES[name]}" for name in method.strategies[:2])
        raise ConfigError(
            f"{one} and {two} are two strategies, of which one can wrap the samplings: turn one of them off"
        )
    section = f"method.{method.strategies[0]}"
    for name in ("particles", "returned"):
        if getattr(method, name) != 1:
            raise ConfigError(
                f"method.{name}={getattr(method, name)}: {section} makes whole samplings of one particle each: give method.{name}=1"
            )
    if method.choose != "first":
        raise ConfigError(
            f"method.choose={method.choose}: {section} keeps the best picture ever seen by itself: give method.choose=first"
        )
    if method.values_states:
        raise ConfigError(
            f"{section} wraps samplings of one particle without a search: leave out method.search, rollover, backtracking, steering and tempering"
        )
    if method.follows_noise:
        _noise_gradient(config)
    _noise_search(config)
    _local_search(config)
    _draft(config)
    _tree_search(config)
    check_words(config, section)


def _noise_gradient(config: Config) -> None:
    method, options, steps = config.method, config.method.noise_gradient, config.sampler.steps
    section = "method.noise_gradient"
    if method.guided:
        rule = "guidance" if method.guidance.rule != "none" else "clean"
        raise ConfigError(
            f"method.{rule}.rule={getattr(method, rule).rule} guides each step, and {section} differentiates plain samplings: give "
            f"method.{rule}.rule=none, or {section}.iterations=0"
        )
    if options.over == "all" and config.sampler.eta == 0:
        raise ConfigError(
            f"{section}.over=all optimises the noise of steps, and sampler.eta=0 draws none: give sampler.eta=1, or {section}.over=start"
        )
    if options.last is not None and options.over == "start":
        raise ConfigError(
            f"{section}.last={options.last} is of the steps' noise, and over=start leaves it as it is: give {section}.over=all, or last=null"
        )
    if options.last is not None and options.last > steps:
        raise ConfigError(
            f"{section}.last={options.last} is more than sampler.steps={steps}: give fewer, or null for all of them and the start"
        )
    if options.project != "none" and options.clip != 0:
        raise ConfigError(
            f"{section}.clip={options.clip:g} cuts a gradient whose length {section}.project={options.project} does not keep: "
            f"give {section}.clip=0"
        )
    if options.project != "none" and config.backbone.kind == "analytic":
        raise ConfigError(
            f"{section}.project={options.project} makes a spectrum white, and backbone={config.backbone.name} has too few numbers for "
            f"one: give {section}.project=none"
        )
    usual = type(options)()
    for name, value, reads in (
        ("optimiser", "sgd", ("momentum", "nesterov")),
        ("optimiser", "adamw", ("epsilon", "decay")),
        ("penalty", "gaussian", ("subsample", "permutations")),
        ("estimate", "hybrid", ("neighbours", "radius")),
    ):
        for option in reads:
            given = getattr(options, option)
            if getattr(options, name) != value and given != getattr(usual, option):
                raise ConfigError(
                    f"{section}.{option}={shown(given)} is read with {section}.{name}={value} only: leave it at "
                    f"{shown(getattr(usual, option))}"
                )


def _noise_search(config: Config) -> None:
    search, steps = config.method.noise_search, config.sampler.steps
    for name, number, which in (
        ("populations", search.rounds, "one for each round"),
        ("begin", search.rounds - 1, "one for each round but the first"),
    ):
        given = getattr(search, name)
        if given and name == "begin" and search.propose != "evolution":
            raise ConfigError(
                f"method.noise_search.{name} is for propose=evolution, not {search.propose}: give method.noise_search.{name}=[]"
            )
        if given and len(given) != number:
            raise ConfigError(
                f"method.noise_search.{name} has {len(given)} numbers for rounds={search.rounds}: give {number}, {which}, or []"
            )
    if list(search.begin) != sorted(search.begin):
        raise ConfigError(
            f"method.noise_search.begin={shown(list(search.begin))} goes back: give shares of the steps that rise, "
            "since the children of a round are of those that passed where it begins"
        )
    if search.begin and round(search.begin[-1] * steps) >= steps:
        raise ConfigError(
            f"method.noise_search.begin={shown(list(search.begin))} leaves no step of sampler.steps={steps}: "
            f"give at most {1 - 1 / steps:.3g}"
        )


def _local_search(config: Config) -> None:
    search, steps, section = config.method.local_search, config.sampler.steps, "method.local_search"
    if not search.drafts:
        return
    if len(search.children) != len(search.begin) or not search.begin:
        raise ConfigError(
            f"{section}.children={shown(list(search.children))} and {section}.begin={shown(list(search.begin))}: give one number of "
            "each for each round, and at least one round"
        )
    firsts = [round(share * steps) for share in search.begin]
    if min(firsts) < 1 or max(firsts) >= steps:
        raise ConfigError(
            f"{section}.begin={shown(list(search.begin))} is at steps {shown(firsts)} of sampler.steps={steps}, and children begin "
            f"at step 1 to {steps - 1}: give shares of {1 / steps:.3g} to {1 - 1 / steps:.3g}"
        )


def _draft(config: Config) -> None:
    draft, steps, section = config.method.draft, config.sampler.steps, "method.draft"
    if not draft.candidates:
        return
    few, usual = draft.few(steps), type(draft)()
    _lighter(config)
    if draft.refine != "none" and few >= steps + draft.lighter:
        raise ConfigError(
            f"{section}.steps={shown(draft.steps)} makes drafts of {few} steps and sampler.steps={steps} is not more: give fewer steps, or "
            f"{section}.refine=none"
        )
    if config.sampler.timesteps is not None:
        raise ConfigError(
            f"sampler.timesteps={shown(list(config.sampler.timesteps))} are those of a whole sampling, and {section} takes fewer steps: give "
            "sampler.timesteps=null"
        )
    if draft.keep > draft.candidates:
        raise ConfigError(
            f"{section}.keep={draft.keep} is more than {section}.candidates={draft.candidates}: give at most as many"
        )
    for option, read in (("keep", draft.refine != "none"), ("begin", draft.refine == "resume")):
        if not read and getattr(draft, option) != getattr(usual, option):
            raise ConfigError(
                f"{section}.{option}={getattr(draft, option):g} is not read with {section}.refine={draft.refine}: "
                f"leave it at {getattr(usual, option):g}"
            )
    if draft.refine == "resume" and not 1 <= round(draft.begin * steps) < steps:
        raise ConfigError(
            f"{section}.begin={draft.begin:g} is at step {round(draft.begin * steps)} of sampler.steps={steps}, and drafts go on at step 1 "
            f"to {steps - 1}: give a share of {1 / steps:.3g} to {1 - 1 / steps:.3g}"
        )


CACHED = ("flux", "flux2_klein", "qwen_image")
"""Layouts whose network has diffusers' caches, and blocks by the names that TaylorSeer looks for."""


def _lighter(config: Config) -> None:
    """Drafts whose steps cost less."""
    draft, backbone, guider, section = config.method.draft, config.backbone, config.guider, "method.draft"
    usual = type(draft)()
    for option, read, by in (
        *(
            (name, draft.cache != "none", "cache=taylorseer")
            for name in ("warmup", "interval", "last", "order")
        ),
        ("stack", bool(draft.skip), "skip"),
    ):
        if not read and getattr(draft, option) != getattr(usual, option):
            raise ConfigError(
                f"{section}.{option}={shown(getattr(draft, option))} is read with {section}.{by} only: leave it at "
                f"{shown(getattr(usual, option))}"
            )
    if not draft.lighter:
        return
    caches, few = draft.cache != "none", draft.few(config.sampler.steps)
    given, off = ("cache", "none") if caches else ("skip", "[]")
    value = draft.cache if caches else shown(list(draft.skip))
    faults = {
        f"is of a transformer, and backbone={backbone.name} is none": backbone.kind != "transformer",
        f"is no switch of diffusers' network of backbone={backbone.name}": caches
        and backbone.layout not in CACHED,
        f"alters the network, and method={config.method.name} guides it": config.method.guided,
        f"alters the network, and so does the further pass of guider={guider.name}": guider.further_pass,
        "needs the same calls at each step, and guider.start or stop leave halves out": caches
        and (guider.start, guider.stop) != (0, 1),
        f"answers none of {few} steps of a draft": caches and not draft.cached(few),
        **{
            f"alters blocks, and so does backbone.{name}={shown(getattr(backbone, name))}": bool(
                getattr(backbone, name)
            )
            for name in ("compile", "offload", "storage")
        },
    }
    for fault, there in faults.items():
        if there:
            raise ConfigError(
                f"{section}.{given}={value} {fault}: give {section}.{given}={off}, or change that"
            )


def _tree_search(config: Config) -> None:
    method, options, steps, section = (
        config.method,
        config.method.tree_search,
        config.sampler.steps,
        "method.tree_search",
    )
    if not options.budget:
        return
    if config.sampler.deterministic or steps == 1:
        raise ConfigError(
            f"{section}.budget={options.budget} needs noise at each step to branch by, and there is none: give sampler.eta=1, or a sampler "
            "such as ddim_ancestral, of more than one step"
        )
    if method.guided:
        raise ConfigError(
            f"{section}.budget={options.budget} draws children by the model's own kernel, which method.guidance and method.clean shift: "
            f"give method.guidance.rule=none and method.clean.rule=none, or {section}.budget=0"
        )
    if options.budget < steps:
        raise ConfigError(
            f"{section}.budget={options.budget} is less than one sampling of sampler.steps={steps}: give at least {steps}"
        )
    at = [round(share * steps) for share in options.branch]
    if at and max(at) > steps - 2:
        raise ConfigError(
            f"{section}.branch={shown(list(options.branch))} is at steps {shown(at)} of sampler.steps={steps}, and a child has a step of its "
            f"own from those up to {steps - 2}: give shares of at most {(steps - 2) / steps:.3g}"
        )
