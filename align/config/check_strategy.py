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
    if method.branches:
        raise ConfigError(
            f"{section} wraps samplings of one particle without a search: leave out method.search, rollover, steering and tempering"
        )
    if method.follows_noise:
        _noise_gradient(config)
    _noise_search(config)
    _local_search(config)
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
